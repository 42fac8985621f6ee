use std::time::Duration;

/// Units of a time, the largest first, in nanoseconds.
const UNITS: [(&str, u128); 7] =
    [("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];

/// Reads a time such as `500ms`, `5s`, `2m`, `1h30m` or `90d`: whole numbers, each with its unit,
/// the largest first. The command line, the configuration and the file of `rowmill watch` read
/// times with this function alone.
///
/// # Errors
/// A sentence that says how a time is written.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    parse(text).ok_or_else(|| {
        let negative = if text.starts_with('-') { "a time cannot be negative: " } else { "" };
        format!("{negative}a time looks like 500ms, 5s, 2m, 1h30m or 90d")
    })
}

fn parse(text: &str) -> Option<Duration> {
    let (mut rest, mut units, mut nanos) = (text, UNITS.iter(), 0u128);
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|character: char| character.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let (_, of) = units.find(|(name, _)| *name == unit)?;
        nanos = nanos.checked_add(number.parse::<u128>().ok()?.checked_mul(*of)?)?;
        rest = behind;
    }
    // Each time is a number of milliseconds somewhere, which a database can keep.
    let fits = !text.is_empty() && i64::try_from(nanos / 1_000_000).is_ok();
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    let rest = u32::try_from(nanos % 1_000_000_000).ok()?;
    fits.then(|| Duration::new(seconds, rest))
}

/// Writes a time as [`parse_time`] reads it: as a whole number of the largest unit that divides it.
pub fn show_time(time: Duration) -> String {
    match time.as_nanos() {
        0 => "0s".to_owned(),
        nanos => {
            let (unit, of) = UNITS.into_iter().find(|(_, of)| nanos.is_multiple_of(*of)).unwrap_or(("ns", 1));
            format!("{}{unit}", nanos / of)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_it_is_read() {
        for (text, millis) in [("500ms", 500), ("5s", 5_000), ("2m", 120_000), ("36h", 129_600_000), ("1d", 86_400_000), ("90d", 7_776_000_000)] {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(millis)));
            assert_eq!(show_time(Duration::from_millis(millis)), text);
        }
        assert_eq!(parse_time("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_time("1d12h5m10s250ms"), Ok(Duration::from_millis(129_910_250)));
        for (text, shown) in
            [("24h", "1d"), ("60s", "1m"), ("1h30m", "90m"), ("0d", "0s"), ("1500us", "1500us"), ("1500ns", "1500ns"), ("1000ms", "1s")]
        {
            assert_eq!(show_time(parse_time(text).unwrap()), shown);
        }
    }

    #[test]
    fn a_text_that_is_no_time_is_refused_with_examples() {
        for text in [
            "",
            "5",
            "d",
            "1.5s",
            "1 d",
            "5 s",
            "1y",
            "1w",
            "1D",
            "5S",
            "never",
            "30m1h",
            "1s1s",
            "1h 30m",
            "٣s",
            "99999999999999999999d",
            "999999999999999d",
        ] {
            assert_eq!(parse_time(text), Err("a time looks like 500ms, 5s, 2m, 1h30m or 90d".to_owned()), "{text}");
        }
        assert!(parse_time("-5s").unwrap_err().starts_with("a time cannot be negative: "));
    }
}
