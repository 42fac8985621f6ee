//! What a row or a query is to do. Both guests have it: a component is a processor of one kind.

use std::time::Duration;

use rowmill_guest::{BatchStatus, Failure, Message, Outcome, Summary, host};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Deserialize)]
pub struct Deed {
    #[serde(rename = "do", default)]
    what: What,
    /// A word that comes back in whatever becomes of the row. What a row said is a row, too: its word is said again.
    #[serde(alias = "said")]
    say: String,
    /// Sleep for so many milliseconds first, in a host call.
    #[serde(default)]
    sleep_ms: u64,
    /// Then count to this.
    #[serde(default)]
    spin: u64,
    /// Names of output files, and the text for each.
    #[serde(default)]
    pieces: Vec<(String, String)>,
    /// Ask to be run again until this attempt,
    #[serde(default)]
    until_attempt: u32,
    /// after this number of milliseconds.
    #[serde(default)]
    again_ms: u64,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    #[default]
    Succeed,
    /// Returns an outcome that says that the work cannot be done. Its pieces count.
    Fail,
    /// Fails for good, without an outcome.
    GiveUp,
    /// Asks to be run again, always.
    RetryAlways,
    Trap,
    AbortBatch,
}

/// The result of a row that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Said {
    pub line: u32,
    pub said: String,
}

/// The context of a batch: what `mark-done` is to do.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Return what it was told, as an error.
    tell: bool,
    /// Sleep for so many milliseconds first.
    mark_sleep_ms: u64,
    /// Ask to be called again before this call,
    mark_until: u32,
    /// after this number of milliseconds.
    mark_again_ms: u64,
}

impl Deed {
    pub fn act(self, line: u32, attempt: u32) -> Result<Outcome<Said>, Failure> {
        sleep(Duration::from_millis(self.sleep_ms));
        (0..self.spin).for_each(|n| {
            std::hint::black_box(n);
        });
        let again = Duration::from_millis(self.again_ms);
        if attempt < self.until_attempt {
            return Err(Failure::retry(self.say).after(again));
        }
        let outcome = match self.what {
            What::Succeed => Outcome::success(Said { line, said: self.say }),
            What::Fail => Outcome::failed().message(Message::new("told-to-fail").value(self.say)),
            What::GiveUp => return Err(Failure::permanent(self.say)),
            What::RetryAlways => return Err(Failure::retry(self.say).after(again)),
            What::Trap => panic!("{}", self.say),
            What::AbortBatch => return Err(Failure::abort_batch(self.say)),
        };
        Ok(self.pieces.into_iter().fold(outcome, |outcome, (file, text)| outcome.piece(file, text)))
    }
}

/// The end of a batch, as an error when it is told to tell.
pub fn remember(summary: &Summary<Memory>) -> Result<(), Failure> {
    let Memory { tell, mark_sleep_ms, mark_until, mark_again_ms } = summary.batch.context;
    sleep(Duration::from_millis(mark_sleep_ms));
    let call = host::mark_attempt().unwrap_or_default();
    if call < mark_until {
        return Err(Failure::retry(format!("call {call} of {mark_until}")).after(Duration::from_millis(mark_again_ms)));
    }
    if !tell {
        return Ok(());
    }
    let status = match summary.status {
        BatchStatus::Success => "success",
        BatchStatus::Failed => "failed",
        BatchStatus::Aborted => "aborted",
    };
    let Summary { rows, success, failed, aborted, .. } = summary;
    let files: String = summary.files.iter().map(|file| format!(" {}:{}", file.name, file.size)).collect();
    Err(Failure::permanent(format!("{status} {rows}={success}+{failed}+{aborted}{files} in call {call}")))
}

#[cfg(target_arch = "wasm32")]
fn sleep(time: Duration) {
    mod bindings {
        wit_bindgen::generate!({ path: "../sleeper/wit", generate_all });
    }
    if !time.is_zero() {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        bindings::wasi::clocks::monotonic_clock::subscribe_duration(nanoseconds).block();
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}
