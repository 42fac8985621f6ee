//! `wasi:io/poll`, where guests sleep and wait for the network. A wait ends when its call is out of time, so that the call ends with the functions that were on its stack.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::io::poll::{Host as _, HostPollable as _};

use super::guest::GuestState;

/// As wasmtime's own implementation is named.
const POLL: &str = "wasi:io/poll@0.2.12";

/// Puts the two functions that wait over those of wasmtime.
pub(super) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut poll = linker.instance(POLL)?;
    poll.func_wrap_async("poll", |mut store: StoreContextMut<'_, GuestState>, (pollables,): (Vec<Resource<DynPollable>>,)| {
        Box::new(async move {
            let GuestState { table, turn, .. } = store.data_mut();
            Ok((turn.stop.or(table.poll(pollables)).await?,))
        })
    })?;
    poll.func_wrap_async("[method]pollable.block", |mut store: StoreContextMut<'_, GuestState>, (pollable,): (Resource<DynPollable>,)| {
        Box::new(async move {
            let GuestState { table, turn, .. } = store.data_mut();
            turn.stop.or(table.block(pollable)).await
        })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}
