//! Which of the ticks that are due count.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::CronLine;
use crate::model::{BatchId, Missed, Timestamp};

/// Missed ticks that are submitted each, at most: the last ones.
pub const MISSED_MAX: usize = 100;
/// With [`Missed::Skip`] a tick counts as long as it is not later than this: a worker that was busy, or a restart, is no reason to leave it out.
pub const LATE: std::time::Duration = std::time::Duration::from_secs(60);
/// Dropped ticks are counted so far: a line of every second may have missed millions.
const COUNTED_MAX: usize = 10_000;
/// Where the last ticks are looked for first, in milliseconds before now.
const LOOK_BACK: i64 = 60_000;

/// What becomes of the ticks that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The tick to submit; none when none of them counts.
    pub at: Option<Timestamp>,
    /// The tick that comes next, due or not.
    pub next_at: Timestamp,
    /// Ticks that were left out because there were too many, up to [`COUNTED_MAX`].
    pub dropped: usize,
}

/// Decides. None when the line has no more ticks.
pub(super) fn plan(line: &CronLine, missed: Missed, due: Timestamp, now: Timestamp) -> Option<Plan> {
    if missed == Missed::All {
        let last = last_ticks(line, due, now, MISSED_MAX)?;
        let first = *last.first()?;
        let next_at = match last.get(1) {
            Some(next) => *next,
            None => line.next_after(first)?,
        };
        return Some(Plan { at: Some(first), next_at, dropped: count_before(line, due, first) });
    }
    let last = *last_ticks(line, due, now, 1)?.first()?;
    let counts = missed == Missed::Once || now.since(last) <= LATE;
    Some(Plan { at: counts.then_some(last), next_at: line.next_after(last)?, dropped: 0 })
}

/// The last ticks up to now, in order, at most so many: `due` is one, whatever the line says by now, and the others lie behind it.
fn last_ticks(line: &CronLine, due: Timestamp, now: Timestamp, most: usize) -> Option<Vec<Timestamp>> {
    let mut back = LOOK_BACK;
    loop {
        let begin = now.0.saturating_sub(back);
        let from_the_first = begin <= due.0;
        let mut last = VecDeque::new();
        let mut at = if from_the_first { due } else { line.next_after(Timestamp(begin))? };
        while at <= now {
            if last.len() == most {
                last.pop_front();
            }
            last.push_back(at);
            at = line.next_after(at)?;
        }
        if from_the_first || last.len() == most {
            return Some(last.into());
        }
        // So far back that each look costs more than all before it, and not much more than the ticks that are wanted.
        back = back.saturating_mul(2);
    }
}

fn count_before(line: &CronLine, due: Timestamp, first: Timestamp) -> usize {
    std::iter::successors(Some(due), |at| line.next_after(*at)).take_while(|at| *at < first).take(COUNTED_MAX).count()
}

/// The id of the batch of a schedule's tick, which is the same whoever submits it. A UUIDv7 of the tick's time: what is random in others comes from the schedule.
pub fn batch_id(schedule: Uuid, tick: Timestamp) -> BatchId {
    let mut digest = Sha256::new();
    digest.update(schedule.as_bytes());
    digest.update(tick.0.to_le_bytes());
    let mut chance = [0; 10];
    chance.copy_from_slice(&digest.finalize()[..10]);
    uuid::Builder::from_unix_timestamp_millis(u64::try_from(tick.0).unwrap_or(0), &chance).into_uuid().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_767_268_800_000;
    const SECOND: i64 = 1_000;
    const HOUR: i64 = 3_600 * SECOND;

    fn line(text: &str) -> CronLine {
        CronLine::parse(text, "UTC", Timestamp(NOON)).unwrap()
    }

    fn planned(text: &str, missed: Missed, due: i64, now: i64) -> (Option<i64>, i64, usize) {
        let plan = plan(&line(text), missed, Timestamp(NOON + due), Timestamp(NOON + now)).unwrap();
        (plan.at.map(|at| at.0 - NOON), plan.next_at.0 - NOON, plan.dropped)
    }

    #[test]
    fn a_tick_in_time_is_submitted_whatever_the_policy() {
        for missed in [Missed::Skip, Missed::Once, Missed::All] {
            assert_eq!(planned("@hourly", missed, 0, 0), (Some(0), HOUR, 0));
            assert_eq!(planned("@hourly", missed, 0, 59 * SECOND), (Some(0), HOUR, 0));
        }
    }

    #[test]
    fn of_missed_ticks_none_or_one_or_each_counts() {
        let now = 5 * HOUR + 120 * SECOND;
        assert_eq!(planned("@hourly", Missed::Skip, 0, now), (None, 6 * HOUR, 0));
        assert_eq!(planned("@hourly", Missed::Once, 0, now), (Some(5 * HOUR), 6 * HOUR, 0));
        assert_eq!(planned("@hourly", Missed::All, 0, now), (Some(0), HOUR, 0));
        // The last one is in time.
        assert_eq!(planned("@hourly", Missed::Skip, 0, 5 * HOUR + SECOND), (Some(5 * HOUR), 6 * HOUR, 0));
    }

    #[test]
    fn of_very_many_missed_ticks_the_last_hundred_are_submitted() {
        let planned = |due, now| planned("* * * * * *", Missed::All, due, now);
        assert_eq!(planned(0, 99 * SECOND), (Some(0), SECOND, 0));
        assert_eq!(planned(0, 100 * SECOND), (Some(SECOND), 2 * SECOND, 1));
        assert_eq!(planned(0, 5_000 * SECOND), (Some(4_901 * SECOND), 4_902 * SECOND, 4_901));
        // They are counted so far.
        assert_eq!(planned(0, 50_000 * SECOND), (Some(49_901 * SECOND), 49_902 * SECOND, COUNTED_MAX));
        // Ten years.
        assert_eq!(planned(0, 87_600 * HOUR).2, COUNTED_MAX);
    }

    #[test]
    fn ticks_are_found_however_long_ago_they_were() {
        // Each second of one minute of the year.
        let year = 365 * 24 * HOUR;
        let (at, next, dropped) = planned("* 0 13 1 1 *", Missed::All, HOUR, year);
        assert_eq!((at, next, dropped), (Some(HOUR), HOUR + SECOND, 0));
        assert_eq!(planned("* 0 13 1 1 *", Missed::Once, HOUR, year), (Some(HOUR + 59 * SECOND), year + HOUR, 0));
    }

    #[test]
    fn a_tick_that_the_line_does_not_know_is_submitted_all_the_same() {
        // The database of time zones was brought up to date, and the tick had been somewhere else.
        assert_eq!(planned("@hourly", Missed::All, HOUR / 2, HOUR + SECOND), (Some(HOUR / 2), HOUR, 0));
    }

    #[test]
    fn each_tick_of_each_schedule_has_an_id_of_its_own_that_sorts_by_time() {
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        let id = |schedule, seconds: i64| batch_id(schedule, Timestamp(NOON + seconds * SECOND));
        assert_eq!(id(one, 0), id(one, 0));
        assert_ne!(id(one, 0), id(other, 0));
        assert!((0..100).all(|second| id(one, second) < id(one, second + 1)));
        assert_eq!(id(one, 0).uuid().get_version_num(), 7);
    }
}
