//! What the operator is told now and then, and not once per row.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(10);

/// When something was told last.
#[derive(Default)]
pub(super) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it is time to tell it again.
    pub fn is_due(&self) -> bool {
        let mut told_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told_at.is_none_or(|at| at.elapsed() > EVERY);
        if due {
            *told_at = Some(Instant::now());
        }
        due
    }
}
