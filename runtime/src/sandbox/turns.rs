//! Turns: when a guest yields its thread to other guests, and its session looks at the deadline.

use std::future::{self, Future};
use std::num::{NonZeroU32, NonZeroU64};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use wasmtime::{CallHook, CallHookHandler, StoreContextMut};

use super::guest::GuestState;

/// When a guest yields. A yield never changes how much fuel a row uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// Fuel between two yields of a guest that computes.
    pub fuel: NonZeroU64,
    /// Returns from the host between two looks at the clock.
    pub returns: NonZeroU32,
    /// A guest yields at such a look if it has not yielded there for this time.
    pub time: Duration,
}

impl Turns {
    /// A guest yields only where it waits for the host.
    pub const NEVER: Turns = Turns { fuel: NonZeroU64::MAX, returns: NonZeroU32::MAX, time: Duration::MAX };
}

impl Default for Turns {
    /// About a millisecond of computing, or a millisecond in which the guest called the host.
    fn default() -> Turns {
        const FUEL: NonZeroU64 = NonZeroU64::new(1_000_000).unwrap();
        const RETURNS: NonZeroU32 = NonZeroU32::new(16).unwrap();
        Turns { fuel: FUEL, returns: RETURNS, time: Duration::from_millis(1) }
    }
}

/// Tells a guest that yielded, sleeps or waits for the network to go no further: when it gets its
/// thread back, its call ends with [`OutOfTime`], and so with the functions that were on its stack.
#[derive(Clone, Debug, Default)]
pub(super) struct StopSign(Arc<Sign>);

#[derive(Debug, Default)]
struct Sign {
    is_raised: AtomicBool,
    raised: Notify,
}

impl StopSign {
    pub(super) fn raise(&self) {
        self.0.is_raised.store(true, Ordering::Release);
        self.0.raised.notify_waiters();
    }

    fn is_raised(&self) -> bool {
        self.0.is_raised.load(Ordering::Acquire)
    }

    /// Waits for a host function's work, until the sign is raised.
    pub(super) async fn or<T>(&self, work: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.0.raised.notified() => Err(wasmtime::Error::new(OutOfTime)),
        }
    }
}

/// The call's deadline has passed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the deadline has passed")]
pub(super) struct OutOfTime;

/// The guest's current turn, as far as its calls of the host tell.
pub(super) struct Turn {
    turns: Turns,
    since: Instant,
    returns: u32,
    pub(super) stop: StopSign,
}

impl Turn {
    pub(super) fn new(turns: Turns) -> Turn {
        Turn { turns, since: Instant::now(), returns: 0, stop: StopSign::default() }
    }

    /// Counts a return from the host. Returns true if the turn is over; then the next one begins.
    fn is_over(&mut self) -> bool {
        self.returns += 1;
        if self.returns < self.turns.returns.get() {
            return false;
        }
        self.returns = 0;
        let now = Instant::now();
        let over = now.saturating_duration_since(self.since) >= self.turns.time;
        if over {
            self.since = now;
        }
        over
    }
}

/// Ends turns by time.
///
/// Fuel counts the guest's instructions and not the host's work for it: to pass a text of 16 MiB
/// takes milliseconds and a handful of units. So minutes could pass between two yields by fuel.
/// This hook yields by itself, and leaves the fuel alone. wasmtime calls it also on the return from
/// a libcall such as `memory.grow`. Compiled code keeps its count of the fuel in a register over a
/// libcall, so a change of the fuel or of its interval there would corrupt the count.
pub(super) struct TurnHook;

type Yield<'event> = Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send + 'event>>;

impl CallHookHandler<GuestState> for TurnHook {
    // Written out, and not as an `async fn`: a future without a state needs no allocation, and
    // nearly all events do nothing.
    fn handle_call_event<'hook, 'store, 'event>(&'hook self, mut store: StoreContextMut<'store, GuestState>, event: CallHook) -> Yield<'event>
    where
        'hook: 'event,
        'store: 'event,
        Self: 'event,
    {
        if !matches!(event, CallHook::ReturningFromHost) {
            return Box::pin(future::poll_fn(|_| Poll::Ready(Ok(()))));
        }
        let turn = &mut store.data_mut().turn;
        // A yield by fuel ends with such a return, too.
        if turn.stop.is_raised() {
            return Box::pin(future::poll_fn(|_| Poll::Ready(Err(wasmtime::Error::new(OutOfTime)))));
        }
        if turn.is_over() { Box::pin(yield_once(turn.stop.clone())) } else { Box::pin(future::poll_fn(|_| Poll::Ready(Ok(())))) }
    }
}

/// Pending at the first poll, and awake at once, as wasmtime's own yield by fuel.
fn yield_once(stop: StopSign) -> impl Future<Output = wasmtime::Result<()>> + Send {
    let mut yielded = false;
    future::poll_fn(move |context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(if stop.is_raised() { Err(wasmtime::Error::new(OutOfTime)) } else { Ok(()) });
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}
