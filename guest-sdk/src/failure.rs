//! Why a run has no outcome.

use crate::bindings::types;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Why a run has no outcome.
///
/// `?` turns any [`Error`] into [`Failure::Permanent`], with the text of the error and of its sources. For that reason `Failure` is not an `Error` itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It would fail the same way again. The row fails with this text.
    Permanent(String),
    /// It may work later. The row is run again as long as attempts are left, then fails with the reason.
    Retry {
        /// Why, for the one who looks at the row.
        reason: String,
        /// Not before this time has passed; the runtime's own backoff when `None`. The contract counts in milliseconds.
        after: Option<Duration>,
    },
    /// Stop the whole batch. Rows that have no outcome yet, this one included, end as aborted.
    AbortBatch(String),
}

impl Failure {
    /// It would fail the same way again.
    pub fn permanent(text: impl Into<String>) -> Self {
        Self::Permanent(text.into())
    }

    /// It may work later, after the runtime's own backoff unless [`after`](Self::after) says otherwise.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None }
    }

    /// Stop the whole batch.
    pub fn abort_batch(text: impl Into<String>) -> Self {
        Self::AbortBatch(text.into())
    }

    /// Sets the least time to wait before a retry. A failure that is not a retry becomes one.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        let (Self::Permanent(reason) | Self::AbortBatch(reason) | Self::Retry { reason, .. }) = self;
        Self::Retry { reason, after: Some(wait) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permanent(text) => write!(f, "failed for good: {text}"),
            Self::Retry { reason, after: None } => write!(f, "to be run again: {reason}"),
            Self::Retry { reason, after: Some(wait) } => write!(f, "to be run again in {wait:?}: {reason}"),
            Self::AbortBatch(text) => write!(f, "the batch is to be aborted: {text}"),
        }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        Self::Permanent(text)
    }
}

/// Out to the runtime. A function, as is the way back: `From` is taken there, since the contract's type is an `Error`.
pub(crate) fn to_contract(failure: Failure) -> types::Failure {
    match failure {
        Failure::Permanent(text) => types::Failure::Permanent(text),
        Failure::Retry { reason, after } => {
            // 584 million years are as good as for ever.
            let after_ms = after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            types::Failure::Retry(types::RetryHint { reason, after_ms })
        }
        Failure::AbortBatch(text) => types::Failure::AbortBatch(text),
    }
}

/// Back from the contract, for the test harness.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn from_contract(failure: types::Failure) -> Failure {
    match failure {
        types::Failure::Permanent(text) => Failure::Permanent(text),
        types::Failure::Retry(hint) => Failure::Retry { reason: hint.reason, after: hint.after_ms.map(Duration::from_millis) },
        types::Failure::AbortBatch(text) => Failure::AbortBatch(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the rate is not a number")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn an_error_becomes_permanent_with_its_sources() {
        fn work() -> Result<(), Failure> {
            Err(Outer("x".parse::<u8>().unwrap_err()))?;
            Ok(())
        }
        assert_eq!(work(), Err(Failure::permanent("the rate is not a number: invalid digit found in string")));
    }

    #[test]
    fn a_wait_survives_the_contract_in_milliseconds() {
        let failure = Failure::retry("busy").after(Duration::from_micros(1_500_700));
        let expected = Failure::Retry { reason: "busy".into(), after: Some(Duration::from_millis(1500)) };
        assert_eq!(from_contract(to_contract(failure)), expected);
        let forever = to_contract(Failure::retry("busy").after(Duration::MAX));
        assert_eq!(forever, types::Failure::Retry(types::RetryHint { reason: "busy".into(), after_ms: Some(u64::MAX) }));
    }
}
