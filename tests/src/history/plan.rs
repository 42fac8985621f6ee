//! What a client does with a batch, from the seed: the same seed makes the same plans.

use std::time::Duration;

use rowmill::model::{AfterCondition, FailureLimit, JsonText, NewRow, ProcessorKind, RetryRule, Terms, Timestamp};
use serde_json::json;

use crate::random::Random;

/// The tenants, each with its weight and the leases that it may run at the same time.
pub const APPS: [(&str, u32, Option<u32>); 3] = [("north", 1, None), ("south", 3, None), ("small", 1, Some(3))];
/// Operations, one per kind.
pub const BATCH_OP: &str = "chronicle";
pub const QUERY_OP: &str = "ask";

const FILES: [&str; 3] = ["all.txt", "some.csv", "rest.log"];

/// Which plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanKey {
    pub seed: u64,
    pub client: u32,
    pub number: u32,
}

/// How a batch goes on once its first rows are submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It was not held.
    Runs,
    /// Rows are appended, and it is released.
    Release,
    /// Rows are appended, and it is aborted while it is held.
    AbortHeld,
    /// Rows are appended, and it is removed.
    Discard,
}

#[derive(Clone, Debug)]
pub struct BatchPlan {
    pub kind: ProcessorKind,
    pub app: &'static str,
    pub priority: i32,
    pub attempts_max: u32,
    /// Traps are tried again.
    pub retry_traps: bool,
    /// When it starts, and when it is to have ended, after its submission.
    pub start_after_ms: Option<u64>,
    pub deadline_after_ms: Option<u64>,
    pub failures_max: Option<FailureLimit>,
    /// Whether `mark-done` returns what it was told, and how long it takes.
    pub tell: bool,
    pub mark_sleep_ms: u64,
    /// Before this call `mark-done` asks to be called again, after this number of milliseconds. More than there are calls: it asks in vain.
    pub mark_until: u32,
    pub mark_again_ms: u64,
    pub rows: Vec<RowPlan>,
    /// How many rows each request has: the submit, then the appends.
    pub requests: Vec<usize>,
    pub course: Course,
    /// When a batch that runs is aborted by its client.
    pub abort_after_ms: Option<u64>,
    /// How often it is retried once it has ended, where there is something to retry; and whether only rows are that failed as they were told.
    pub retries: u64,
    /// A batch of its outputs comes after it, on this condition.
    pub chain: Option<AfterCondition>,
    pub retries_told: bool,
    /// It is removed once it has ended, and with it what it was retried for.
    pub remove: bool,
}

/// What the guest is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Succeed,
    Fail,
    GiveUp,
    RetryAlways,
    Trap,
    AbortBatch,
    /// The row never reaches the guest.
    Rejected,
    /// It is what a row of another batch said.
    Repeat,
}

#[derive(Clone, Debug)]
pub struct RowPlan {
    pub line: u32,
    pub deed: Deed,
    /// A word of its own, by which it is known again.
    pub say: String,
    pub sleep_ms: u64,
    pub spin: u64,
    pub until_attempt: u32,
    pub again_ms: u64,
    pub pieces: Vec<(&'static str, String)>,
}

impl PlanKey {
    pub fn plan(self) -> BatchPlan {
        let mut random = Random::new(self.seed ^ (u64::from(self.client) << 40) ^ (u64::from(self.number) << 8));
        // The first number of seeds that are near each other is far apart already, but not the second one's distance.
        let mut random = Random::new(random.next());
        let dice = &mut random;
        let kind = if one_in(dice, 6) { ProcessorKind::SlowQuery } else { ProcessorKind::Batch };
        let course = match (kind, dice.below(20)) {
            (ProcessorKind::SlowQuery, _) | (_, 0..=12) => Course::Runs,
            (_, 13..=17) => Course::Release,
            (_, 18) => Course::AbortHeld,
            _ => Course::Discard,
        };
        let rows = self.rows(dice, kind);
        let requests = if course == Course::Runs { vec![rows.len()] } else { cut(dice, rows.len()) };
        BatchPlan {
            kind,
            app: APPS[index(dice, APPS.len())].0,
            priority: i32::try_from(dice.below(3)).expect("it is small"),
            attempts_max: 3,
            retry_traps: one_in(dice, 3),
            start_after_ms: one_in(dice, 6).then(|| dice.below(1_500)),
            deadline_after_ms: one_in(dice, 15).then(|| 1_500 + dice.below(4_000)),
            failures_max: match dice.below(12) {
                0 => Some(FailureLimit::Rows(number(index(dice, 4)))),
                1 => Some(FailureLimit::Percent(u8::try_from(dice.below(6)).expect("it is small"))),
                _ => None,
            },
            tell: !one_in(dice, 8),
            mark_sleep_ms: if one_in(dice, 4) { dice.below(300) } else { 0 },
            rows,
            requests,
            course,
            abort_after_ms: (matches!(course, Course::Runs | Course::Release) && one_in(dice, 7)).then(|| dice.below(1_500)),
            retries: if kind == ProcessorKind::Batch { dice.below(4).saturating_sub(1) } else { 0 },
            retries_told: one_in(dice, 4),
            chain: match (kind, course, dice.below(6)) {
                (ProcessorKind::Batch, Course::Runs | Course::Release, 0) => Some(AfterCondition::Success),
                (ProcessorKind::Batch, Course::Runs | Course::Release, 1) => Some(AfterCondition::Any),
                _ => None,
            },
            remove: one_in(dice, 2),
            // Drawn last: all else is as it was without them.
            mark_until: [1, 1, 1, 2, 3, u32::MAX][index(dice, 6)],
            mark_again_ms: dice.below(300),
        }
    }

    fn rows(self, dice: &mut Random, kind: ProcessorKind) -> Vec<RowPlan> {
        if kind == ProcessorKind::SlowQuery {
            return vec![self.row(dice, 0, 0, 400)];
        }
        let count = match dice.below(10) {
            0..=5 => 1 + index(dice, 30),
            6..=8 => 1 + index(dice, 300),
            _ => 1 + index(dice, 2_000),
        };
        let sleep_max = if one_in(dice, 3) { 10_000 / count as u64 } else { 0 };
        let mut rows: Vec<RowPlan> = (0..count).map(|at| self.row(dice, at, number(at) + 1, sleep_max.min(300))).collect();
        if one_in(dice, 4) {
            // Lines that do not grow.
            for at in (1..rows.len()).rev() {
                rows.swap(at, index(dice, at + 1));
            }
        }
        rows
    }

    fn row(self, dice: &mut Random, at: usize, line: u32, sleep_max: u64) -> RowPlan {
        let deed = match dice.below(200) {
            0..=5 => Deed::Fail,
            6..=7 => Deed::GiveUp,
            8 => Deed::RetryAlways,
            9..=10 => Deed::Trap,
            11 if one_in(dice, 8) => Deed::AbortBatch,
            12..=13 if line > 0 => Deed::Rejected,
            _ => Deed::Succeed,
        };
        let say = format!("c{}b{}r{at}", self.client, self.number);
        let pieces = match dice.below(3) {
            0 => Vec::new(),
            _ => (0..1 + dice.below(2)).map(|piece| piece_of(dice, &say, piece)).collect(),
        };
        RowPlan {
            line,
            deed,
            say,
            sleep_ms: dice.below(sleep_max + 1),
            spin: dice.below(20_000),
            until_attempt: if one_in(dice, 50) { 2 } else { 1 },
            again_ms: dice.below(200),
            pieces,
        }
    }
}

impl BatchPlan {
    pub fn context(&self) -> JsonText {
        JsonText::trusted(
            json!({
                "tell": self.tell, "mark_sleep_ms": self.mark_sleep_ms, "mark_until": self.mark_until, "mark_again_ms": self.mark_again_ms,
            })
            .to_string(),
        )
    }

    pub fn op(&self) -> &'static str {
        match self.kind {
            ProcessorKind::Batch => BATCH_OP,
            ProcessorKind::SlowQuery => QUERY_OP,
        }
    }

    /// The terms of its submission at this moment.
    pub fn terms(&self, now: Timestamp) -> Terms {
        let after = |millis: Option<u64>| millis.map(|millis| now.after(Duration::from_millis(millis)));
        let codes = if self.retry_traps { vec!["trap".to_owned()] } else { Vec::new() };
        Terms {
            priority: self.priority,
            attempts_max: self.attempts_max,
            retries: RetryRule { backoff: Duration::from_millis(100), codes, ..RetryRule::default() },
            start_at: after(self.start_after_ms),
            deadline_at: after(self.deadline_after_ms),
            failures_max: self.failures_max,
        }
    }

    /// The batch that comes after this one, when these of its rows, numbered from 1, have succeeded.
    pub fn chained(&self, succeeded: &[usize]) -> BatchPlan {
        let mut rows: Vec<RowPlan> = succeeded.iter().filter_map(|row_no| self.rows.get(row_no.checked_sub(1)?)).cloned().collect();
        rows.sort_by_key(|row| row.line);
        let repeat = |row| RowPlan { deed: Deed::Repeat, until_attempt: 1, pieces: Vec::new(), ..row };
        let rows: Vec<RowPlan> = rows.into_iter().map(repeat).collect();
        BatchPlan {
            start_after_ms: None,
            deadline_after_ms: None,
            failures_max: None,
            requests: vec![rows.len()],
            rows,
            course: Course::Runs,
            abort_after_ms: None,
            retries: 0,
            chain: None,
            remove: false,
            ..self.clone()
        }
    }

    /// The rows of one request.
    pub fn request(&self, at: usize) -> Vec<NewRow> {
        let begin: usize = self.requests[..at].iter().sum();
        self.rows[begin..begin + self.requests[at]].iter().map(RowPlan::new_row).collect()
    }
}

impl RowPlan {
    pub fn input(&self) -> String {
        let what = match self.deed {
            Deed::Succeed => "succeed",
            Deed::Fail => "fail",
            Deed::GiveUp => "give-up",
            Deed::RetryAlways => "retry-always",
            Deed::Trap => "trap",
            Deed::AbortBatch => "abort-batch",
            Deed::Repeat => return json!({"line": self.line, "said": self.say}).to_string(),
            Deed::Rejected => return json!({"what": "was read", "say": self.say}).to_string(),
        };
        json!({
            "do": what, "say": self.say, "sleep_ms": self.sleep_ms, "spin": self.spin, "pieces": self.pieces, "until_attempt": self.until_attempt,
            "again_ms": self.again_ms,
        })
        .to_string()
    }

    fn new_row(&self) -> NewRow {
        let rejected = (self.deed == Deed::Rejected).then(|| self.say.clone());
        NewRow { rejected, ..NewRow::new(self.line, JsonText::trusted(self.input())) }
    }
}

fn piece_of(dice: &mut Random, say: &str, piece: u64) -> (&'static str, String) {
    let file = FILES[index(dice, FILES.len())];
    let text = match dice.below(12) {
        0 => String::new(),
        1 => format!("  {say} piece {piece} in {file}\n "),
        _ => format!("{say} piece {piece} in {file}"),
    };
    (file, text)
}

/// Cuts rows into one to four requests; the first may be empty.
fn cut(dice: &mut Random, rows: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..dice.below(4)).map(|_| index(dice, rows + 1)).collect();
    cuts.sort_unstable();
    cuts.push(rows);
    cuts.iter().scan(0, |before, &cut| Some(cut - std::mem::replace(before, cut))).collect()
}

pub fn one_in(dice: &mut Random, of: u64) -> bool {
    dice.below(of) == 0
}

pub fn index(dice: &mut Random, length: usize) -> usize {
    usize::try_from(dice.below(length as u64)).expect("it is below a length")
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("rows are few")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_come_back_with_their_seed_and_hold_everything() {
        let plans = |seed| (0..400).map(|number| PlanKey { seed, client: 1, number }.plan()).collect::<Vec<_>>();
        let (first, again, other) = (plans(7), plans(7), plans(8));
        assert_eq!(format!("{first:?}"), format!("{again:?}"));
        assert_ne!(format!("{first:?}"), format!("{other:?}"));
        for course in [Course::Runs, Course::Release, Course::AbortHeld, Course::Discard] {
            assert!(first.iter().any(|plan| plan.course == course), "{course:?}");
        }
        for deed in [Deed::Fail, Deed::GiveUp, Deed::RetryAlways, Deed::Trap, Deed::AbortBatch, Deed::Rejected] {
            assert!(first.iter().flat_map(|plan| &plan.rows).any(|row| row.deed == deed), "{deed:?}");
        }
        for plan in &first {
            assert_eq!(plan.requests.iter().sum::<usize>(), plan.rows.len());
        }
    }
}
