//! Debug information of uploads, within a bound.

use super::LoadError;

/// Debug information of one upload that is kept. A stop reads some of it for each frame that it
/// tells, on the thread of the guest and outside of its fuel: about half a millisecond for the
/// 2 MiB that Rust's library brings along.
const DEBUG_BYTES_MAX: usize = 4 << 20;
/// Components within components, at most.
const DEPTH_MAX: u32 = 32;

/// Magic number and version.
const HEADER_BYTES: usize = 8;
const CUSTOM: u8 = 0;
/// In a component: a module, and another component.
const NESTED: [u8; 2] = [1, 4];

/// A component as it is, or without its debug information if that is too large. Names of functions
/// stay. A file that is no component is returned as it is: the compiler refuses it.
///
/// # Errors
/// [`LoadError::Invalid`] for one that is nested too deep.
pub(super) fn without_large_debug(component: Vec<u8>) -> Result<Vec<u8>, LoadError> {
    let mut debug_bytes = 0;
    let Some(stripped) = strip(&component, DEPTH_MAX, &mut debug_bytes)? else { return Ok(component) };
    if debug_bytes <= DEBUG_BYTES_MAX {
        return Ok(component);
    }
    tracing::debug!(debug_bytes, "debug information is left out: stops are told without files and lines");
    Ok(stripped)
}

/// Copies without the sections of debug information, and adds up their bytes. None for what cannot be read.
fn strip(wasm: &[u8], depth: u32, debug_bytes: &mut usize) -> Result<Option<Vec<u8>>, LoadError> {
    if depth == 0 {
        return Err(LoadError::Invalid(format!("components are nested deeper than {DEPTH_MAX}")));
    }
    let Some((header, mut rest)) = wasm.split_at_checked(HEADER_BYTES) else { return Ok(None) };
    let is_component = header[6] == 1;
    let mut kept = header.to_vec();
    while let Some((&id, after)) = rest.split_first() {
        let Some((payload, after)) = take_bytes(after) else { return Ok(None) };
        if id == CUSTOM && take_bytes(payload).is_some_and(|(name, _)| name.starts_with(b".debug_")) {
            *debug_bytes += payload.len();
        } else if is_component && NESTED.contains(&id) {
            let Some(inner) = strip(payload, depth - 1, debug_bytes)? else { return Ok(None) };
            push_section(&mut kept, id, &inner);
        } else {
            push_section(&mut kept, id, payload);
        }
        rest = after;
    }
    Ok(Some(kept))
}

/// Reads a length and as many bytes as it says.
fn take_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for at in 0..5 {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f).checked_shl(7 * u32::try_from(at).ok()?)?;
        if byte < 0x80 {
            return bytes[at + 1..].split_at_checked(length);
        }
    }
    None
}

fn push_section(kept: &mut Vec<u8>, id: u8, payload: &[u8]) {
    kept.push(id);
    let mut length = payload.len();
    loop {
        let low = u8::try_from(length & 0x7f).expect("it has seven bits");
        length >>= 7;
        kept.push(if length == 0 { low } else { low | 0x80 });
        if length == 0 {
            break;
        }
    }
    kept.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";
    const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";

    fn custom(kept: &mut Vec<u8>, name: &str, bytes: usize) {
        let mut payload = vec![u8::try_from(name.len()).unwrap()];
        payload.extend_from_slice(name.as_bytes());
        payload.resize(1 + name.len() + bytes, 7);
        push_section(kept, CUSTOM, &payload);
    }

    fn component(debug_bytes: usize) -> Vec<u8> {
        let mut module = MODULE.to_vec();
        custom(&mut module, ".debug_info", debug_bytes);
        custom(&mut module, "name", 3);
        let mut inner = COMPONENT.to_vec();
        push_section(&mut inner, 1, &module);
        let mut outer = COMPONENT.to_vec();
        push_section(&mut outer, 4, &inner);
        custom(&mut outer, "producers", 300);
        outer
    }

    #[test]
    fn debug_information_over_the_bound_is_left_out_and_names_stay() {
        let section = 1 + ".debug_info".len();
        let largest = component(DEBUG_BYTES_MAX - section);
        assert_eq!(without_large_debug(largest.clone()).unwrap(), largest);
        let mut module = MODULE.to_vec();
        custom(&mut module, "name", 3);
        let stripped = without_large_debug(component(DEBUG_BYTES_MAX - section + 1)).unwrap();
        assert!(stripped.len() < 400 && stripped.windows(module.len()).any(|window| window == module));
        assert!(stripped.windows(9).any(|window| window == b"producers"));
    }

    #[test]
    fn what_is_no_component_is_left_alone_and_deep_nesting_is_refused() {
        let mut cut = component(DEBUG_BYTES_MAX);
        cut.pop();
        for wasm in [Vec::new(), MODULE.to_vec(), b"\0asm\x01\0\0\0\0\xff\xff\xff\xff\xff".to_vec(), cut] {
            assert_eq!(without_large_debug(wasm.clone()).unwrap(), wasm);
        }
        let nested = (0..DEPTH_MAX).fold(COMPONENT.to_vec(), |inner, _| {
            let mut outer = COMPONENT.to_vec();
            push_section(&mut outer, 4, &inner);
            outer
        });
        assert!(without_large_debug(nested).unwrap_err().to_string().contains("nested deeper than 32"));
    }
}
