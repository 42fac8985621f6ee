//! The runtime's side of [`host`](crate::host) in a native build, where there is no runtime: what the processor says is recorded per thread, and what
//! it asks is answered as the test wishes.

use super::Log;
use crate::Level;
use std::cell::RefCell;
use std::time::Duration;

/// What a test wishes the processor to see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wishes {
    /// How often `cancelled` still says no; `None` is for ever.
    pub looks_before_cancelled: Option<u32>,
    /// What `remaining` says.
    pub remaining: Duration,
}

impl Default for Wishes {
    fn default() -> Self {
        Self { looks_before_cancelled: None, remaining: Duration::from_secs(60) }
    }
}

/// What a processor said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub logs: Vec<Log>,
    pub progress: Vec<(u8, String)>,
}

thread_local! {
    static RECORDER: RefCell<Option<(Wishes, Said)>> = const { RefCell::new(None) };
}

/// Runs `call` and returns what it said beside its result. Not to be nested.
pub(crate) fn record<T>(wishes: Wishes, call: impl FnOnce() -> T) -> (T, Said) {
    RECORDER.set(Some((wishes, Said::default())));
    let result = call();
    let (_, said) = RECORDER.take().expect("nothing else takes it before the call is over");
    (result, said)
}

pub(crate) fn log(level: Level, text: &str) {
    RECORDER.with_borrow_mut(|recorder| match recorder {
        Some((_, said)) => said.logs.push(Log { level, text: text.into() }),
        // Called outside the harness, by a test of some inner function: the test's output is the next best place.
        None => eprintln!("{level:?}: {text}"),
    });
}

pub(crate) fn progress(percent: u8, text: &str) {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some((_, said)) = recorder {
            said.progress.push((percent, text.into()));
        }
    });
}

pub(crate) fn cancelled() -> bool {
    RECORDER.with_borrow_mut(|recorder| match recorder {
        Some((Wishes { looks_before_cancelled: Some(looks), .. }, _)) => match looks.checked_sub(1) {
            Some(left) => {
                *looks = left;
                false
            }
            None => true,
        },
        _ => false,
    })
}

pub(crate) fn remaining_ms() -> u64 {
    let remaining = RECORDER.with_borrow(|recorder| recorder.as_ref().map_or_else(Wishes::default, |(wishes, _)| *wishes).remaining);
    u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX)
}
