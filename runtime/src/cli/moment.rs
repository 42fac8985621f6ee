//! Points in time on the command line, such as `2026-12-01T06:00:00Z`.

use jiff::civil::Date;

use crate::model::Timestamp;

/// Reads a point in time. None for a text that is not written like one.
///
/// # Errors
/// The part that cannot be: a date that does not exist, or a number out of its range.
pub(super) fn parse_point(text: &str) -> Option<Result<Timestamp, String>> {
    let wrong = wrong_part(text);
    if let Some(Some(wrong)) = wrong {
        return Some(Err(wrong));
    }
    match (text.parse::<jiff::Timestamp>(), wrong) {
        (Ok(moment), _) => Some(Ok(Timestamp(moment.as_millisecond()))),
        (Err(_), Some(_)) => Some(Err(format!("it is out of range: moments are {} to {}", jiff::Timestamp::MIN, jiff::Timestamp::MAX))),
        (Err(_), None) => None,
    }
}

/// The part of a point in time that cannot be, in words; `Some(None)` if none is wrong, and none
/// for a text of another shape.
fn wrong_part(text: &str) -> Option<Option<String>> {
    let (date, clock) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = split(date, '-')?;
    let (Ok(year_number), Ok(month_number), Ok(day_number)) = (year.parse::<i64>(), month.parse::<i8>(), day.parse::<i8>()) else {
        return is_number([year, month, day]).then(|| Some(format!("there is no date {date}")));
    };
    let Some(first) = i16::try_from(year_number).ok().filter(|_| year.len() == 4).and_then(|year| Date::new(year, 1, 1).ok()) else {
        return Some(Some(format!("its year is {year}: years are 0000 to 9999, with four digits")));
    };
    let Ok(first) = first.with().month(month_number).build() else {
        return Some(Some(format!("its month is {month}: months are 01 to 12")));
    };
    if !(1..=first.days_in_month()).contains(&day_number) {
        return Some(Some(format!("its day is {day}, but {year}-{month} has {} days", first.days_in_month())));
    }
    let Some(at) = clock.find(['Z', 'z', '+', '-']) else {
        let has_time = split::<2>(clock, ':').is_some() || split::<3>(clock, ':').is_some();
        return has_time.then(|| Some(format!("its offset from UTC is missing: write {text}Z, or an offset such as +01:00 behind it")));
    };
    let (time, offset) = clock.split_at(at);
    let ([hour, minute, second], has_second) = match (split(time, ':'), split::<2>(time, ':')) {
        (Some(parts), _) => (parts, true),
        (None, Some([hour, minute])) => ([hour, minute, "00"], false),
        (None, None) => return None,
    };
    let whole_second = second.split(['.', ',']).next().unwrap_or(second);
    if !is_number([hour, minute, whole_second]) {
        return None;
    }
    let above = |part: &str, most: u32| part.parse::<u32>().map_or(true, |number| number > most);
    let wrong = |name: &str, part: &str, most: u32| above(part, most).then(|| format!("its {name} is {part}: {name}s are 00 to {most}"));
    let in_time =
        wrong("hour", hour, 23).or_else(|| wrong("minute", minute, 59)).or_else(|| wrong("second", whole_second, 59).filter(|_| has_second));
    if in_time.is_some() || matches!(offset, "Z" | "z") {
        return Some(in_time);
    }
    let parts = split::<2>(&offset[1..], ':')?;
    let is_wrong = is_number(parts) && (above(parts[0], 23) || above(parts[1], 59));
    Some(is_wrong.then(|| format!("its offset is {offset}: offsets are -23:59 to +23:59")))
}

/// Splits a text into exactly `N` parts. None if it has another number of them.
fn split<const N: usize>(text: &str, separator: char) -> Option<[&str; N]> {
    text.split(separator).collect::<Vec<_>>().try_into().ok()
}

fn is_number<const N: usize>(parts: [&str; N]) -> bool {
    parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_in_time_is_read_in_the_usual_ways() {
        for text in ["1970-01-01T00:00:01Z", "1970-01-01t01:00:01.0+01:00", "1970-01-01 00:00:01z", "1969-12-31T23:59:01-00:01", "19700101T000001Z"] {
            assert_eq!(parse_point(text), Some(Ok(Timestamp(1_000))), "{text}");
        }
        for text in ["", "tomorrow", "2026-12-01", "10m", "12:00", "-5m", "2026-12-01T", "2026-1a-01T00:00:00Zx"] {
            assert_eq!(parse_point(text), None, "{text}");
        }
    }

    #[test]
    fn a_point_that_cannot_be_says_which_part_is_wrong() {
        for (text, said) in [
            ("2026-02-30T00:00:00Z", "its day is 30, but 2026-02 has 28 days"),
            ("2024-02-30T00:00:00Z", "its day is 30, but 2024-02 has 29 days"),
            ("2026-04-31 00:00Z", "its day is 31, but 2026-04 has 30 days"),
            ("2026-04-00T00:00:00Z", "its day is 00, but"),
            ("2026-13-01T00:00:00Z", "its month is 13: months are 01 to 12"),
            ("2026-00-01T00:00:00Z", "its month is 00: months are 01 to 12"),
            ("10000-01-01T00:00:00Z", "its year is 10000: years are 0000 to 9999"),
            ("26-01-01T00:00:00Z", "its year is 26: years are"),
            ("2026-01-300T00:00:00Z", "there is no date 2026-01-300"),
            ("2026-01-01T24:00:00Z", "its hour is 24: hours are 00 to 23"),
            ("2026-01-01T00:60:00Z", "its minute is 60: minutes are 00 to 59"),
            ("2026-01-01T00:00:60Z", "its second is 60: seconds are 00 to 59"),
            ("2026-01-01T00:00:61.5+01:00", "its second is 61: seconds are 00 to 59"),
            ("2026-01-01T00:00:00+25:00", "its offset is +25:00: offsets are -23:59 to +23:59"),
            ("2026-01-01T00:00:00-01:60", "its offset is -01:60: offsets are -23:59 to +23:59"),
            ("2026-01-01T06:00:00", "its offset from UTC is missing: write 2026-01-01T06:00:00Z, or"),
            ("9999-12-31T23:59:59Z", "it is out of range: moments are -009999-"),
        ] {
            let error = parse_point(text).unwrap_or_else(|| panic!("{text}")).unwrap_err();
            assert!(error.starts_with(said), "{text}: {error}");
        }
    }
}
