//! Guests in WebAssembly text, for what no compiler makes.

use std::collections::BTreeMap;
use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

/// The functions of all worlds: interface, name, parameters and result of the core function.
const FUNCTIONS: [(&str, &str, &str); 10] = [
    ("lifecycle", "init", "(param $app i32) (param $app_len i32) (param $op i32) (param $op_len i32) (param $version i32) (result i32)"),
    ("lifecycle", "close", ""),
    ("batch", "begin", "(param $id i32) (param $id_len i32) (param $context i32) (param $context_len i32) (result i32)"),
    ("batch", "process-row", "(param $line i32) (param $input i32) (param $input_len i32) (param $attempt i32) (result i32)"),
    ("batch", "mark-done", "(param i32 i32 i32 i32 i32 i64 i64 i64 i64 i32 i32) (result i32)"),
    (
        "slow-query",
        "run",
        "(param $id i32) (param $id_len i32) (param $context i32) (param $context_len i32) (param $input i32) (param $input_len i32) (param $attempt i32) (result i32)",
    ),
    ("slow-query", "mark-done", "(param i32 i32 i32 i32 i32 i64 i64 i64 i64 i32 i32) (result i32)"),
    ("file-check", "begin", "(param i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)"),
    ("file-check", "check-records", "(param $records i32) (param $records_len i32) (result i32)"),
    ("file-check", "end", "(result i32)"),
];

/// Where functions return what they return. Memory is zero there unless a body writes to it, and zeros are a success: `ok`, status success, output "" (which
/// counts as `{}`), no messages, no pieces.
pub const RETURNED: u32 = 16;
/// The first address that is free for a body.
pub const FREE: u32 = 1024;

/// Instructions that return this text as the output of a row.
pub fn answer(at: u32, bytes: u32) -> String {
    let (pointer, length) = (RETURNED + 12, RETURNED + 16);
    format!("(i32.store (i32.const {pointer}) (i32.const {at})) (i32.store (i32.const {length}) (i32.const {bytes}))")
}

/// A processor whose functions do nothing and succeed, but for the bodies that are given.
///
/// A body is a list of instructions in folded form. It must not leave anything on the stack.
#[derive(Clone)]
pub struct Wat {
    interfaces: Vec<&'static str>,
    imports: String,
    fields: String,
    pages: u32,
    bodies: BTreeMap<&'static str, String>,
    /// The contract, as text, and the version by which it is exported.
    contract: String,
    version: &'static str,
    /// Other packages, each after those that it needs, and what the guest's world has.
    packages: Vec<String>,
    world: String,
}

impl Wat {
    pub fn batch() -> Wat {
        Wat::new(&["lifecycle", "batch"], "include rowmill:jobs/batch-processor@0.1.0;")
    }

    pub fn slow_query() -> Wat {
        Wat::new(&["lifecycle", "slow-query"], "include rowmill:jobs/slow-query-processor@0.1.0;")
    }

    pub fn file_check() -> Wat {
        Wat::new(&["lifecycle", "file-check"], "include rowmill:jobs/file-checker@0.1.0;")
    }

    /// What may not be.
    pub fn both() -> Wat {
        let world = "include rowmill:jobs/batch-processor@0.1.0; include rowmill:jobs/slow-query-processor@0.1.0;";
        Wat::new(&["lifecycle", "batch", "slow-query"], world)
    }

    fn new(interfaces: &[&'static str], world: &str) -> Wat {
        let contract = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/jobs.wit")).unwrap();
        Wat {
            interfaces: interfaces.to_vec(),
            imports: String::new(),
            fields: String::new(),
            pages: 1,
            bodies: BTreeMap::new(),
            contract,
            version: "0.1.0",
            packages: Vec::new(),
            world: world.to_owned(),
        }
    }

    /// What a function of the contract does: `init`, `begin`, `process-row`, `run`, `mark-done`, `check-records`, `end` or `close`; and `realloc`, which then must return an
    /// address, in place of the allocator.
    pub fn body(mut self, function: &'static str, body: &str) -> Wat {
        self.bodies.insert(function, body.to_owned());
        self
    }

    /// A host function as `$name`.
    pub fn import(mut self, interface: &str, function: &str, name: &str, signature: &str) -> Wat {
        self.imports += &format!("(import \"{interface}\" \"{function}\" (func ${name} {signature}))\n");
        self
    }

    /// The host's log as `$log`: level, text, length.
    pub fn import_log(self) -> Wat {
        self.import("rowmill:jobs/host@0.1.0", "log", "log", "(param i32 i32 i32)")
    }

    /// More fields of the module: globals, functions, data, a start function.
    pub fn fields(mut self, fields: &str) -> Wat {
        self.fields += fields;
        self
    }

    /// How large the memory is at the start, in pages of 64 KiB.
    pub fn pages(mut self, pages: u32) -> Wat {
        self.pages = pages;
        self
    }

    /// Adds to the world.
    pub fn world(mut self, items: &str) -> Wat {
        self.world += items;
        self
    }

    /// A WIT package that the world names.
    pub fn package(mut self, wit: &str) -> Wat {
        self.packages.push(wit.to_owned());
        self
    }

    /// Another contract than ours.
    pub fn contract(mut self, change: impl FnOnce(String) -> String) -> Wat {
        self.contract = change(self.contract);
        self
    }

    /// Another version of it.
    pub fn version(mut self, version: &'static str) -> Wat {
        for text in [&mut self.contract, &mut self.world] {
            *text = text.replace("@0.1.0", &format!("@{version}"));
        }
        self.version = version;
        self
    }

    fn text(&self) -> String {
        let mut functions = String::new();
        let version = self.version;
        for (interface, name, signature) in FUNCTIONS.iter().filter(|(interface, ..)| self.interfaces.contains(interface)) {
            let body = self.bodies.get(name).map_or("", String::as_str);
            let result = if signature.ends_with("(result i32)") { format!("(i32.const {RETURNED})") } else { String::new() };
            functions += &format!(
                "(func ${interface}/{name} (export \"rowmill:jobs/{interface}@{version}#{name}\") {signature} (local $i i32) (local $j i32)\n\
                 (global.set $next (i32.const 32768)) {body} {result})\n"
            );
        }
        let allocate = "(global.set $next (i32.add (global.get $next) (i32.and (i32.add (local.get $size) (i32.const 31)) (i32.const -16))))\n\
                        (i32.and (i32.sub (global.get $next) (local.get $size)) (i32.const -16))";
        let realloc = self.bodies.get("realloc").map_or(allocate, String::as_str);
        format!(
            "(module\n{imports}\n(memory (export \"memory\") {pages})\n(global $next (mut i32) (i32.const 32768))\n{fields}\n\
             (func (export \"cabi_realloc\") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32) {realloc})\n{functions})",
            imports = self.imports,
            pages = self.pages,
            fields = self.fields
        )
    }

    /// A core module that carries its WIT.
    pub fn module(&self) -> Vec<u8> {
        let mut module = wat::parse_str(self.text()).unwrap_or_else(|error| panic!("{error}\n{}", self.text()));
        let mut resolve = Resolve::default();
        for wit in std::iter::once(&self.contract).chain(&self.packages) {
            resolve.push_source("package.wit", wit).unwrap();
        }
        let package = resolve.push_source("guest.wit", &format!("package test:guest; world guest {{ {} }}", self.world)).unwrap();
        let world = resolve.select_world(&[package], Some("guest")).unwrap();
        wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        module
    }

    pub fn component(&self) -> Vec<u8> {
        ComponentEncoder::default().validate(true).module(&self.module()).unwrap().encode().unwrap()
    }
}

/// Adds an instance of another core module to a component. Nothing calls it, but it is there, with its memories.
pub fn with_another_module(component: Vec<u8>, module: &str) -> Vec<u8> {
    with_core_module(component, &wat::parse_str(module).unwrap())
}

/// The same with a module's bytes.
pub fn with_core_module(mut component: Vec<u8>, module: &[u8]) -> Vec<u8> {
    const CORE_MODULE: u8 = 1;
    const CORE_INSTANCE: u8 = 2;
    let mut modules = 0;
    let mut at = 8;
    while at < component.len() {
        let (length, length_bytes) = read_leb(&component[at + 1..]);
        modules += u8::from(component[at] == CORE_MODULE);
        at += 1 + length_bytes + length;
    }
    component.push(CORE_MODULE);
    write_leb(&mut component, module.len());
    component.extend(module);
    // One instance: of the module of this number, without arguments.
    component.extend([CORE_INSTANCE, 4, 1, 0, modules, 0]);
    component
}

fn read_leb(bytes: &[u8]) -> (usize, usize) {
    let count = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    (bytes[..count].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f)), count)
}

pub fn write_leb(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
}
