//! Modules that are meant to cost their compiler more than they should, as bytes: their text would be larger than the tests.

use super::wat::write_leb;

const BLOCK: [u8; 2] = [0x02, 0x40];
const END: u8 = 0x0b;
const NOP: u8 = 0x01;
const LOCAL_GET_0: [u8; 2] = [0x20, 0x00];
const BR_IF_0: [u8; 2] = [0x0d, 0x00];
const LOCAL_TEE: u8 = 0x22;
const DROP: u8 = 0x1a;

/// A module whose functions take a number and have these bodies: locals and code, without the end.
pub fn module(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    section(&mut module, 1, &[1, 0x60, 1, 0x7f, 0]);
    let mut functions = Vec::new();
    write_leb(&mut functions, bodies.len());
    functions.resize(functions.len() + bodies.len(), 0);
    section(&mut module, 3, &functions);
    let mut code = Vec::new();
    write_leb(&mut code, bodies.len());
    for body in bodies {
        write_leb(&mut code, body.len() + 1);
        code.extend(body);
        code.push(END);
    }
    section(&mut module, 10, &code);
    module
}

fn section(module: &mut Vec<u8>, id: u8, content: &[u8]) {
    module.push(id);
    write_leb(module, content.len());
    module.extend(content);
}

/// One function of so many branches, one after the other.
pub fn branches(count: usize) -> Vec<u8> {
    let one = [&BLOCK[..], &LOCAL_GET_0, &BR_IF_0, &[END]].concat();
    [&[0][..], &one.repeat(count)].concat()
}

/// One function of so many blocks within each other, each of which can be left.
pub fn nesting(depth: usize) -> Vec<u8> {
    let open = [&BLOCK[..], &LOCAL_GET_0, &BR_IF_0].concat();
    [&[0][..], &open.repeat(depth), &vec![END; depth]].concat()
}

/// One function that does nothing, in so many bytes.
pub fn nops(bytes: usize) -> Vec<u8> {
    [&[0][..], &vec![NOP; bytes]].concat()
}

/// One function of so many locals, that are all live over so many branches.
pub fn locals(count: usize, branches: usize) -> Vec<u8> {
    let mut body = vec![1];
    write_leb(&mut body, count);
    body.push(0x7f);
    for local in 1..=count.min(2_000) {
        body.extend(LOCAL_GET_0);
        body.push(LOCAL_TEE);
        write_leb(&mut body, local);
        body.push(DROP);
    }
    for _ in 0..branches {
        body.extend([&BLOCK[..], &LOCAL_GET_0, &BR_IF_0, &[END]].concat());
    }
    body
}

/// So many functions that do nothing.
pub fn tiny(count: usize) -> Vec<Vec<u8>> {
    vec![vec![0, 0x20, 0, DROP]; count]
}
