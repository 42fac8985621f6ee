//! The state of one instance: what the guest sees of the host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wasmtime::component::ResourceTable;
use wasmtime::error::Context as _;
use wasmtime::{CallHook, Engine, Store, StoreContextMut};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use super::bindings::{host, types};
use super::capabilities::Capabilities;
use super::http::GuestHttp;
use super::limiter::MemoryLimiter;
use super::log::RowLog;
use super::output_files::MarkState;
use crate::model::Limits;

/// Fuel between two looks at the deadline: about a millisecond.
const YIELD_INTERVAL: u64 = 1_000_000;
/// After this time a guest that makes the host work yields, too: what the host does for it costs next to no fuel.
const TURN: Duration = Duration::from_millis(1);
/// So many returns from the host pass between two looks at the clock. Each memory.copy is one.
const RETURNS_PER_LOOK: u32 = 16;
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
    turn: Turn,
}

/// How long the guest has had its thread, as far as the host has looked.
struct Turn {
    since: Instant,
    returns: u32,
    /// It yields at its next look at the fuel.
    over: bool,
}

/// A store with all limits in place: a start function runs before anyone can set them.
pub(super) fn make_store(
    engine: &Engine,
    limits: &Limits,
    cancel: CancellationToken,
    progress: Option<ProgressSink>,
    capabilities: &Arc<Capabilities>,
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
    let now = Instant::now();
    let turn = Turn { since: now, returns: 0, over: false };
    let http = GuestHttp::new(capabilities.http.clone(), log.clone());
    let capabilities = Arc::clone(capabilities);
    let state = GuestState { wasi, http, table, capabilities, limiter, log, deadline: now, cancel, progress, mark: None, turn };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store.set_fuel(0)?;
    store.fuel_async_yield_interval(Some(YIELD_INTERVAL))?;
    store.call_hook(take_turns);
    Ok(store)
}

/// Fuel counts the guest's instructions and not what the host does for it: passing a text of 16 MiB takes milliseconds and costs a handful. So between two
/// yields by fuel could be minutes, in which nobody looks at the deadline. Where time has passed when the host returns, the guest gets so little fuel at a time
/// that it yields when it next looks, which is before it can repeat the call. The fuel as a whole stays the same.
fn take_turns(mut store: StoreContextMut<'_, GuestState>, hook: CallHook) -> wasmtime::Result<()> {
    if !matches!(hook, CallHook::ReturningFromHost) {
        return Ok(());
    }
    let turn = &mut store.data_mut().turn;
    turn.returns = turn.returns.wrapping_add(1);
    if !turn.returns.is_multiple_of(RETURNS_PER_LOOK) {
        return Ok(());
    }
    let now = Instant::now();
    let over = now - turn.since > TURN;
    let was_over = std::mem::replace(&mut turn.over, over);
    if over {
        turn.since = now;
    }
    match (was_over, over) {
        (_, true) => store.fuel_async_yield_interval(Some(1)),
        (true, false) => store.fuel_async_yield_interval(Some(YIELD_INTERVAL)),
        (false, false) => Ok(()),
    }
}

impl GuestState {
    /// For another lease.
    pub(super) fn rebind(&mut self, cancel: CancellationToken, progress: Option<ProgressSink>) {
        self.cancel = cancel;
        self.progress = progress;
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
