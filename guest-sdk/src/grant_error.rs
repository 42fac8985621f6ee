//! The error of calls to configured values, files, and values by keys.

use std::fmt;

/// Why a call to a configured value, a file or a value by key failed, as a sentence.
///
/// In a function that returns [`Failure`](crate::Failure), `?` makes a permanent failure of it; in `init`, which
/// returns a text, `?` makes a text of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantError(pub(crate) String);

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GrantError {}

impl From<GrantError> for String {
    fn from(error: GrantError) -> String {
        error.0
    }
}

#[cfg(test)]
mod tests {
    use crate::{Failure, config, key_value, testing};

    #[test]
    fn it_becomes_a_failure_or_a_text_with_a_question_mark() {
        fn run() -> Result<u64, Failure> {
            config::require("missing")?;
            Ok(key_value::increment("seen", 1)?)
        }
        fn init() -> Result<String, String> {
            Ok(config::require("missing")?)
        }
        let text = "nothing is configured for \"missing\"";
        assert_eq!((run(), init()), (Err(Failure::permanent(text)), Err(text.to_owned())));
        testing::set_config([("missing", "here")]);
        assert_eq!((run(), init()), (Ok(1), Ok("here".to_owned())));
    }
}
