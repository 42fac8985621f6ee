//! The state of one instance: what the guest sees of the host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wasmtime::component::ResourceTable;
use wasmtime::error::Context as _;
use wasmtime::{Engine, Store};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use super::bindings::{host, types};
use super::capabilities::Capabilities;
use super::http::GuestHttp;
use super::limiter::MemoryLimiter;
use super::log::RowLog;
use super::output_files::MarkState;
use super::session::Bound;
use super::turns::{Turn, TurnHook, Turns};
use crate::model::Limits;

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
    pub(super) http: GuestHttp,
    pub(super) table: ResourceTable,
    pub(super) capabilities: Arc<Capabilities>,
    limiter: MemoryLimiter,
    pub(super) log: RowLog,
    pub(super) deadline: Instant,
    cancel: CancellationToken,
    progress: Option<ProgressSink>,
    /// While `mark-done` is called.
    pub(super) mark: Option<MarkState>,
    pub(super) turn: Turn,
}

/// A store with all limits in place: a start function runs before anyone can set them.
pub(super) fn make_store(
    engine: &Engine,
    limits: &Limits,
    cancel: CancellationToken,
    progress: Option<ProgressSink>,
    capabilities: &Arc<Capabilities>,
    turns: Turns,
) -> wasmtime::Result<Store<GuestState>> {
    let log = RowLog::new(limits.log_bytes, capabilities.masks.clone());
    // Everything of WASI that is not named here is denied when it is called: files, environment, network, names.
    let mut wasi = WasiCtxBuilder::new();
    wasi.stdout(log.as_stream(false)).stderr(log.as_stream(true)).max_random_size(RANDOM_BYTES_MAX).allow_tcp(false).allow_udp(false);
    for directory in &capabilities.directories {
        let permissions = if directory.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        let opened = wasi.preopened_dir(&directory.path, &directory.guest, permissions);
        opened.with_context(|| format!("the directory {}, granted as {}, cannot be opened", directory.path.display(), directory.guest))?;
    }
    let wasi = wasi.build();
    let mut table = ResourceTable::new();
    table.set_max_capacity(HANDLES_MAX);
    let limiter = MemoryLimiter::new(limits.memory_bytes);
    let http = GuestHttp::new(capabilities.http.clone(), log.clone());
    let capabilities = Arc::clone(capabilities);
    let state =
        GuestState { wasi, http, table, capabilities, limiter, log, deadline: Instant::now(), cancel, progress, mark: None, turn: Turn::new(turns) };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store.set_fuel(0)?;
    store.fuel_async_yield_interval(Some(turns.fuel.get()))?;
    store.call_hook_async(TurnHook);
    Ok(store)
}

impl GuestState {
    /// For another lease.
    pub(super) fn rebind(&mut self, cancel: CancellationToken, progress: Option<ProgressSink>) {
        self.cancel = cancel;
        self.progress = progress;
    }

    /// For the call that it was armed for.
    pub(super) fn bound(&self) -> Bound {
        Bound { deadline: self.deadline, stop: self.turn.stop.clone() }
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http.context, table: &mut self.table, hooks: &mut self.http.hooks }
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

    fn progress(&mut self, percent: u8, text: String) {
        if let Some(sink) = &self.progress {
            let mut text = self.capabilities.masks.hide(text);
            text.truncate(text.floor_char_boundary(PROGRESS_TEXT_BYTES));
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
