//! From uploaded bytes to a component.

use wasi_preview1_component_adapter_provider::{WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER};
use wasmtime::{Engine, Module};
use wit_component::ComponentEncoder;

use super::LoadError;

const WASM_MAGIC: &[u8] = b"\0asm";
/// The bytes behind the magic: the version, and the layer in its upper half.
const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];
/// How many bytes of a file are shown when it is not WebAssembly.
const SHOWN_BYTES: usize = 24;

/// Takes a component as it is, and makes one from a core module that carries its WIT (as those do that wit-bindgen made), with the adapter for WASI
/// preview 1 when the module imports that.
pub(super) fn to_component(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, LoadError> {
    let version = wasm.strip_prefix(WASM_MAGIC).and_then(|rest| rest.first_chunk::<4>());
    match version {
        Some(&COMPONENT) => Ok(wasm.to_vec()),
        Some(&CORE_MODULE) => {
            // Before it is lifted: what reads the WIT relies on it, and panics over a file that was cut off.
            Module::validate(engine, wasm).map_err(|error| LoadError::Invalid(format!("{error:#}")))?;
            lift(wasm)
        }
        _ => Err(LoadError::NotWasm { begins: describe(wasm) }),
    }
}

fn lift(module: &[u8]) -> Result<Vec<u8>, LoadError> {
    let invalid = |error: anyhow::Error| LoadError::Invalid(format!("{error:#}"));
    // A module without the section would be encoded to an empty component.
    if wit_component::metadata::decode(module).map_err(invalid)?.0.is_none() {
        return Err(LoadError::CoreModuleWithoutWit);
    }
    ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER))
        .and_then(|mut encoder| encoder.encode())
        .map_err(invalid)
}

fn describe(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "is empty".to_owned();
    }
    let start = &bytes[..bytes.len().min(SHOWN_BYTES)];
    // A character that does not fit is left out.
    let text = start.utf8_chunks().next().filter(|text| text.valid().len() + 3 >= start.len()).map(|text| text.valid());
    match text {
        Some(text) if !text.chars().any(|character| character.is_control() && !character.is_ascii_whitespace()) => {
            format!("begins with the text {text:?}")
        }
        _ => format!("begins with the bytes {}", start.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")),
    }
}
