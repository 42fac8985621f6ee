//! Quotes in records of CSV.

/// Fields are short: a search that begins with a loop finds their ends sooner.
const SHORT_BYTES: usize = 32;

/// The place of the first quote or NUL.
pub(super) fn find_quote_or_nul(bytes: &[u8]) -> Option<usize> {
    let short = &bytes[..bytes.len().min(SHORT_BYTES)];
    let found = short.iter().position(|byte| matches!(byte, b'"' | 0));
    found.or_else(|| Some(short.len() + memchr::memchr2(b'"', 0, &bytes[short.len()..])?))
}

/// How often a byte comes.
pub(super) fn count(byte: u8, bytes: &[u8]) -> u64 {
    if bytes.len() <= SHORT_BYTES {
        bytes.iter().map(|other| u64::from(*other == byte)).sum()
    } else {
        memchr::memchr_iter(byte, bytes).count() as u64
    }
}

/// How a quote inside a quoted field is read that is neither written twice nor followed by a
/// delimiter or the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    QuoteCloses,
    QuoteIsText,
}

/// Returns true if a line that has such a quote ends in quotes. The rest begins behind that quote.
pub(super) fn ends_in_quotes(rest: &[u8], delimiter: u8, reading: Reading) -> bool {
    let mut in_quotes = reading == Reading::QuoteIsText;
    let mut at_field = false;
    let mut bytes = rest.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if !in_quotes {
            in_quotes = at_field && byte == b'"';
            at_field = byte == delimiter;
        } else if byte == b'"' {
            match bytes.peek() {
                Some(b'"') => drop(bytes.next()),
                Some(next) if *next != delimiter && reading == Reading::QuoteIsText => {}
                _ => in_quotes = false,
            }
        }
    }
    in_quotes
}
