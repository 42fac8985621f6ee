//! Times as the search for ticks meets them: on a wall clock that is never changed, and in a zone where it is.

use std::cmp::Ordering;

use croner::errors::CronError;
use croner::{CivilDate, CivilDateTime, CivilTime, CronDateTime, Resolution, Weekday};
use jiff::civil::DateTime;
use jiff::tz::AmbiguousOffset;
use jiff::{SignedDuration, ZonedDateTime};

/// What a clock on the wall shows where nobody ever changes it: every time is there, once.
#[derive(Clone)]
pub(super) struct Unchanged(pub DateTime);

/// A moment in a zone: some times of the wall clock are not there, and some come twice.
#[derive(Clone)]
pub(super) struct Moment(pub ZonedDateTime);

fn civil_of(at: DateTime) -> CivilDateTime {
    let part = |value: i8| u32::try_from(value).unwrap_or(0);
    CivilDateTime::new(
        CivilDate::from_parts_unchecked(at.year().into(), part(at.month()), part(at.day())),
        CivilTime::from_parts_unchecked(part(at.hour()), part(at.minute()), part(at.second())),
    )
}

/// Fails behind the year 9999.
fn datetime_of(civil: CivilDateTime) -> Result<DateTime, CronError> {
    let part = |value: u32| i8::try_from(value).map_err(|_| CronError::InvalidDate);
    let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
    let (month, day) = (part(civil.month())?, part(civil.day())?);
    let (hour, minute, second) = (part(civil.hour())?, part(civil.minute())?, part(civil.second())?);
    DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| CronError::InvalidDate)
}

fn weekday_of(at: DateTime) -> Weekday {
    Weekday::from_days_from_sunday(u32::try_from(at.weekday().to_sunday_zero_offset()).unwrap_or(0))
}

impl CronDateTime for Unchanged {
    fn to_civil(&self) -> CivilDateTime {
        civil_of(self.0)
    }

    fn civil_weekday(&self) -> Weekday {
        weekday_of(self.0)
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Unchanged>, CronError> {
        Ok(Resolution::Single(Unchanged(datetime_of(civil)?)))
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Unchanged> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Unchanged)
    }

    fn cmp_instant(&self, other: &Unchanged) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl CronDateTime for Moment {
    fn to_civil(&self) -> CivilDateTime {
        civil_of(self.0.datetime())
    }

    fn civil_weekday(&self) -> Weekday {
        weekday_of(self.0.datetime())
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Moment>, CronError> {
        let ambiguous = self.0.time_zone().to_ambiguous_zoned_datetime(datetime_of(civil)?);
        let moment = |zoned: Result<ZonedDateTime, jiff::Error>| zoned.map(Moment).map_err(|_| CronError::InvalidTime);
        Ok(match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => Resolution::Single(moment(ambiguous.unambiguous())?),
            AmbiguousOffset::Fold { .. } => Resolution::Ambiguous(moment(ambiguous.clone().earlier())?, moment(ambiguous.later())?),
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Moment> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Moment)
    }

    fn cmp_instant(&self, other: &Moment) -> Ordering {
        self.0.timestamp().cmp(&other.0.timestamp())
    }
}
