//! The state of one instance: what the guest sees of the host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::bindings::{host, types};
use super::limiter::MemoryLimiter;
use super::log::RowLog;
use crate::model::Limits;

/// Fuel between two looks at the deadline: about a millisecond.
const YIELD_INTERVAL: u64 = 1_000_000;
/// What a guest may make the host allocate while values are passed, in wasmtime's unit of about a byte.
const HOSTCALL_FUEL: usize = 16 << 20;
/// Open handles of one instance.
const HANDLES_MAX: usize = 1_000;
/// Random bytes per call.
const RANDOM_BYTES_MAX: u64 = 1 << 20;
/// A word about progress is cut to this.
const PROGRESS_TEXT_BYTES: usize = 200;

/// Who hears of a slow query's progress: percent and a word.
pub type ProgressSink = Arc<dyn Fn(u8, String) + Send + Sync>;

pub(super) struct GuestState {
    wasi: WasiCtx,
    table: ResourceTable,
    limiter: MemoryLimiter,
    pub(super) log: RowLog,
    pub(super) deadline: Instant,
    cancel: CancellationToken,
    progress: Option<ProgressSink>,
}

/// A store with all limits in place: a start function runs before anyone can set them.
pub(super) fn make_store(
    engine: &Engine,
    limits: &Limits,
    cancel: CancellationToken,
    progress: Option<ProgressSink>,
) -> wasmtime::Result<Store<GuestState>> {
    let log = RowLog::new(limits.log_bytes);
    // Everything of WASI that is not named here is denied when it is called: files, environment, network, names.
    let wasi = WasiCtxBuilder::new()
        .stdout(log.as_stream(false))
        .stderr(log.as_stream(true))
        .max_random_size(RANDOM_BYTES_MAX)
        .allow_tcp(false)
        .allow_udp(false)
        .build();
    let mut table = ResourceTable::new();
    table.set_max_capacity(HANDLES_MAX);
    let limiter = MemoryLimiter::new(limits.memory_bytes);
    let mut store = Store::new(engine, GuestState { wasi, table, limiter, log, deadline: Instant::now(), cancel, progress });
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store.set_fuel(0)?;
    store.fuel_async_yield_interval(Some(YIELD_INTERVAL))?;
    Ok(store)
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl types::Host for GuestState {}

impl host::Host for GuestState {
    fn log(&mut self, level: host::Level, text: String) {
        let level = match level {
            host::Level::Trace => "trace",
            host::Level::Debug => "debug",
            host::Level::Info => "info",
            host::Level::Warn => "warn",
            host::Level::Error => "error",
        };
        self.log.entry(level, &text);
    }

    fn progress(&mut self, percent: u8, mut text: String) {
        if let Some(sink) = &self.progress {
            let end = (0..=PROGRESS_TEXT_BYTES.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.truncate(end);
            sink(percent.min(100), text);
        }
    }

    fn cancelled(&mut self) -> bool {
        self.cancel.is_cancelled()
    }

    fn remaining_ms(&mut self) -> u64 {
        let left: Duration = self.deadline.saturating_duration_since(Instant::now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }
}
