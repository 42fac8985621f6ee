//! From uploaded bytes to a component.

use wasi_preview1_component_adapter_provider::{WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER};
use wasmtime::{Engine, Module};
use wit_component::ComponentEncoder;

use super::LoadError;
use super::debug::without_large_debug;
use super::inspect::{Layer, layer_of};

/// Takes a component as it is, and makes one from a core module that carries its WIT (as those do that wit-bindgen made), with the adapter for WASI
/// preview 1 when the module imports that. Without debug information that is too large.
pub(super) fn to_component(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, LoadError> {
    let component = match layer_of(wasm)? {
        Layer::Component => wasm.to_vec(),
        Layer::Module => {
            // Before it is lifted: what reads the WIT relies on it, and panics over a file that was cut off.
            Module::validate(engine, wasm).map_err(|error| LoadError::Invalid(format!("{error:#}")))?;
            lift(wasm)?
        }
    };
    without_large_debug(component)
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
