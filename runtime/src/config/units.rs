//! Times and sizes as people write them: `250ms`, `64MiB`.

use std::time::Duration;

use bytesize::ByteSize;

use crate::model::{Limits, parse_time, show_time};

/// A time limit of one call may be between these.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(1);
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// An instance's memory is this much at least; at most [`Limits::MEMORY_MAX_BYTES`].
pub const MEMORY_MIN_BYTES: u64 = 64 << 10;

/// Reads a size in bytes, such as `512KiB` or `64MiB`.
///
/// # Errors
/// A sentence that says what a size looks like.
pub fn parse_size(text: &str) -> Result<u64, String> {
    Ok(text.parse::<ByteSize>().map_err(|_| "a size looks like 512KiB or 64MiB".to_owned())?.as_u64())
}

/// Reads the time limit of one call.
///
/// # Errors
/// A sentence: it is no time, or out of bounds.
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_time(text)?;
    if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&timeout) {
        return Err(format!("a time limit is between {} and {}", show_time(TIMEOUT_MIN), show_time(TIMEOUT_MAX)));
    }
    Ok(timeout)
}

/// Reads the memory limit of one instance, in bytes.
///
/// # Errors
/// A sentence: it is no size, or out of bounds.
pub fn parse_memory(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if !(MEMORY_MIN_BYTES..=Limits::MEMORY_MAX_BYTES).contains(&bytes) {
        return Err(format!("a memory limit is between 64KiB and {}MiB", Limits::MEMORY_MAX_BYTES >> 20));
    }
    Ok(bytes)
}

/// Writes a size so that [`parse_size`] reads the same.
pub fn show_size(bytes: u64) -> String {
    match bytes {
        0 => "0B".to_owned(),
        bytes if bytes % (1 << 30) == 0 => format!("{}GiB", bytes >> 30),
        bytes if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        bytes if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
        bytes => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_and_bounded() {
        assert_eq!(parse_timeout("1500ms"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_timeout("2m"), Ok(Duration::from_secs(120)));
        assert!(parse_timeout("0s").is_err() && parse_timeout("-1s").is_err() && parse_timeout("25h").is_err() && parse_timeout("5").is_err());
        assert_eq!(parse_memory("64MiB"), Ok(64 << 20));
        assert!(parse_memory("1KiB").is_err() && parse_memory("1GiB").is_err() && parse_memory("much").is_err());
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for millis in [0, 1, 250, 1_000, 1_500, 10_000, 60_000, 90_000, 3_600_000, 86_400_000] {
            let time = Duration::from_millis(millis);
            assert_eq!(parse_time(&show_time(time)), Ok(time), "{}", show_time(time));
        }
        assert_eq!(parse_time(&show_time(Duration::from_nanos(1_500))), Ok(Duration::from_nanos(1_500)));
        for bytes in [0, 1, 1_000, 1_024, 8 << 10, 64 << 20, 3 << 30, (1 << 20) + 1] {
            assert_eq!(parse_size(&show_size(bytes)), Ok(bytes), "{}", show_size(bytes));
        }
    }
}
