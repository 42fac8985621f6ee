//! Cron lines: which they are, and when their ticks are.

mod fields;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use self::fields::{BadField, FIELDS, check_days};
use super::wall::{Moment, Unchanged};
use crate::model::Timestamp;

/// Why there are no ticks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("a cron line has 5 fields (minute, hour, day of month, month, day of week), or 6 with the second before them, but {line:?} has {fields}")]
    FieldCount { line: String, fields: usize },
    #[error("the cron line {line:?} cannot be read: {value:?} is no {field}; {wanted}, with * , - and /")]
    Field { line: String, field: &'static str, value: String, wanted: &'static str },
    /// It could mean two things, or less than it seems to.
    #[error("the cron line {line:?} is not taken: {why}; write {instead:?}")]
    Instead { line: String, why: String, instead: String },
    #[error("the cron line {line:?} cannot be read: {reason}")]
    Unreadable { line: String, reason: String },
    #[error("the cron line {line:?} cannot be read: the names are @hourly, @daily, @weekly, @monthly and @yearly")]
    Name { line: String },
    #[error("the cron line {line:?} never comes: there is no such day in any year")]
    Never { line: String },
    #[error("there is no time zone {zone:?}: use a name of the IANA database, such as UTC or Europe/Berlin")]
    Zone { zone: String },
}

/// Lines that have a name.
const NAMED: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * SUN"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// A cron line in a time zone.
#[derive(Clone, Debug)]
pub struct CronLine {
    cron: Cron,
    zone: TimeZone,
    /// It names its times, as against "every so often". Where the clock is changed each of them comes once all the same.
    has_fixed_times: bool,
}

impl CronLine {
    /// Reads a line and finds its zone.
    ///
    /// # Errors
    /// [`ScheduleError`], with what can be written instead; also for a line that has no tick after `now`.
    pub fn parse(line: &str, zone: &str, now: Timestamp) -> Result<CronLine, ScheduleError> {
        let unknown = || ScheduleError::Zone { zone: zone.to_owned() };
        let zone = TimeZone::get(zone).ok().filter(|zone| !zone.is_unknown()).ok_or_else(unknown)?;
        let fields = fields_of(line)?;
        let cron = read(line, &fields)?;
        // Second, minute and hour, or the latter two.
        let has_fixed_times = !fields[..fields.len() - 3].iter().any(|field| field.contains(['*', '/']));
        let read = CronLine { cron, zone, has_fixed_times };
        if read.next_after(now).is_none() {
            return Err(ScheduleError::Never { line: line.to_owned() });
        }
        Ok(read)
    }

    /// The first tick after this moment; none when there is no more.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        // Ticks are whole seconds.
        let after = jiff::Timestamp::from_second(after.0.div_euclid(1_000)).ok()?;
        let next = if self.has_fixed_times { self.next_fixed(after)? } else { self.next_real(after)? };
        // A search that does not go forward would never end.
        (next > after).then(|| Timestamp(next.as_millisecond()))
    }

    /// Every moment at which the clock on the wall shows what the line says: times that come twice are ticks twice, and times that are left out are none.
    fn next_real(&self, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let from = Moment(after.to_zoned_datetime(self.zone.clone()));
        Some(self.cron.find_next_occurrence(&from, false).ok()?.0.timestamp())
    }

    /// Times as they would be if nobody changed the clock, each moved to where it really is: one that comes twice to the first, and one that is left out to the end of
    /// the gap. This never changes their order, so that the first that is later than now is the next.
    fn next_fixed(&self, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let mut wall = Unchanged(after.to_zoned_datetime(self.zone.clone()).datetime());
        loop {
            wall = self.cron.find_next_occurrence(&wall, false).ok()?;
            let real = self.real(wall.0)?;
            if real > after {
                return Some(real);
            }
        }
    }

    fn real(&self, wall: DateTime) -> Option<jiff::Timestamp> {
        let ambiguous = self.zone.to_ambiguous_zoned_datetime(wall);
        let AmbiguousOffset::Gap { before, .. } = ambiguous.offset() else {
            return ambiguous.earlier().ok().map(|zoned| zoned.timestamp());
        };
        // With the offset from before the gap it is as far behind the change as it would be inside.
        let inside = before.to_timestamp(wall).ok()?;
        let change = self.zone.preceding(inside.checked_add(SignedDuration::from_millis(1)).ok()?).next()?;
        Some(change.timestamp())
    }

    /// The zone as the database of zones writes it.
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// A moment for people, as a clock in the line's zone shows it, with its difference from UTC.
    pub fn show(&self, at: Timestamp) -> String {
        let Ok(moment) = jiff::Timestamp::from_millisecond(at.0) else { return at.0.to_string() };
        moment.display_with_offset(self.zone.to_offset(moment)).to_string()
    }
}

fn fields_of(line: &str) -> Result<Vec<&str>, ScheduleError> {
    let written = if line.contains('@') {
        let named = NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(line.trim()));
        named.ok_or_else(|| ScheduleError::Name { line: line.to_owned() })?.1
    } else {
        line
    };
    let fields: Vec<&str> = written.split_whitespace().collect();
    match fields.len() {
        5 | 6 => Ok(fields),
        count => Err(ScheduleError::FieldCount { line: line.to_owned(), fields: count }),
    }
}

fn read(line: &str, fields: &[&str]) -> Result<Cron, ScheduleError> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let of_line = &FIELDS[FIELDS.len() - fields.len()..];
    let mut reason = None;
    let mut instead = Vec::new();
    for (field, value) in of_line.iter().zip(fields) {
        match field.check(value) {
            Ok(()) => instead.push((*value).to_owned()),
            Err(BadField::Instead { why, value: other }) => {
                reason.get_or_insert(why);
                instead.push(other);
            }
            Err(BadField::Unknown) => {
                return Err(ScheduleError::Field { line: line.to_owned(), field: field.name, value: (*value).to_owned(), wanted: field.wanted });
            }
        }
    }
    if reason.is_none() {
        reason = check_days(&mut instead);
    }
    if let Some(why) = reason {
        return Err(ScheduleError::Instead { line: line.to_owned(), why, instead: instead.join(" ") });
    }
    parser.parse(&fields.join(" ")).map_err(|error| ScheduleError::Unreadable { line: line.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests;
