//! How large steps are, and what lies between them.

use std::time::Duration;

/// A step should take about so long: whoever waits for what it holds waits no longer. (Over SQLite that is the only connection that writes.)
const STEP: Duration = Duration::from_millis(20);
const ROWS_LEAST: u32 = 100;
const ROWS_MOST: u32 = 10_000;
/// A step that was held up is no reason to stand still for long.
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// How much of the time is spent on pruning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A tenth: the rest is for those who work.
    Background,
    /// Half, where somebody waits for it.
    Foreground,
}

impl Pace {
    /// What lies between a step that took so long and the next.
    pub(super) fn pause(self, took: Duration) -> Duration {
        let times = match self {
            Pace::Background => 9,
            Pace::Foreground => 1,
        };
        took.saturating_mul(times).min(PAUSE_MOST)
    }
}

/// Rows of the next step, by what the last one took.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepRows(u32);

impl Default for StepRows {
    fn default() -> StepRows {
        StepRows(1_000)
    }
}

impl StepRows {
    pub fn next(self) -> u32 {
        self.0
    }

    /// No more than twice as many as before; few rows tell nothing.
    pub fn learn(&mut self, rows: u64, took: Duration) {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        if rows < ROWS_LEAST {
            return;
        }
        let fits = u128::from(rows) * STEP.as_micros() / took.as_micros().max(1);
        self.0 = u32::try_from(fits).unwrap_or(u32::MAX).min(self.0.saturating_mul(2)).clamp(ROWS_LEAST, ROWS_MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_as_many_rows_as_fit_into_its_time() {
        let mut rows = StepRows::default();
        for (went_through, millis, next) in
            [(1_000, 1, 2_000), (2_000, 10, 4_000), (4_000, 20, 4_000), (4_000, 200, 400), (400, 4_000, 100), (3, 1, 100)]
        {
            rows.learn(went_through, Duration::from_millis(millis));
            assert_eq!(rows.next(), next);
        }
        for _ in 0..20 {
            rows.learn(u64::from(rows.next()), Duration::ZERO);
        }
        assert_eq!(rows.next(), ROWS_MOST);
    }

    #[test]
    fn pauses_are_bounded() {
        assert_eq!(Pace::Background.pause(Duration::from_millis(20)), Duration::from_millis(180));
        assert_eq!(Pace::Foreground.pause(Duration::from_millis(20)), Duration::from_millis(20));
        assert_eq!(Pace::Background.pause(Duration::from_secs(10)), PAUSE_MOST);
    }
}
