//! What is known of a batch at a moment, and which of two moments is the later one.

use serde::{Deserialize, Serialize};

use crate::model::{Batch, BatchCounts, BatchId, BatchStatus, BatchStep, Message, OutputFile, ProcessorKind, RecordedOutcome};

/// A batch as pollers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: BatchId,
    pub app: String,
    pub op: String,
    pub kind: ProcessorKind,
    /// The round that this is of: a retry of the batch begins another.
    pub round: u32,
    pub status: BatchStatus,
    pub counts: BatchCounts,
    /// A slow query's own word about it: 0 to 100, and a text.
    pub said: Option<(u8, String)>,
    /// The output files; final when the status is.
    pub files: Vec<OutputFile>,
    /// The status and the files are final, and `mark-done` was called.
    pub done: bool,
    /// What a slow query that has ended returned.
    pub answer: Option<QueryAnswer>,
}

/// What a slow query returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryAnswer {
    /// Valid JSON.
    pub output: Option<String>,
    pub messages: Vec<Message>,
    /// Why it was aborted, when a reason was given.
    #[serde(default)]
    pub abort_reason: Option<String>,
}

impl QueryAnswer {
    /// The answer of a slow query that has ended, with its row.
    pub fn of(query: &Batch, row: Option<RecordedOutcome>) -> QueryAnswer {
        let (output, messages) = row.map_or((None, Vec::new()), |row| (row.output, row.messages));
        QueryAnswer { output, messages, abort_reason: query.abort_reason.clone() }
    }
}

/// What is known of a batch at the moment, for those who watch it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The round of the batch; 0 until something is known.
    pub round: u32,
    pub status: Option<BatchStatus>,
    pub counts: BatchCounts,
    /// A slow query's own word about it: 0 to 100, and a text.
    pub said: Option<(u8, String)>,
    /// The status and the files are final, and `mark-done` was called.
    pub done: bool,
}

/// What goes through Redis to those who watch: a snapshot without what may be large.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Event {
    pub id: BatchId,
    pub round: u32,
    pub status: BatchStatus,
    pub counts: BatchCounts,
    pub said: Option<(u8, String)>,
    pub done: bool,
}

/// A batch only goes forward in this order: its round, its status, then its rows (appended while it is held), then the rows that have ended, then what comes after the end.
/// A late message with a lesser age is old news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    round: u32,
    rank: u8,
    rows: u64,
    ended: u64,
    done: bool,
    answered: bool,
}

impl Age {
    /// As a text of fixed width whose order is that of the age: Redis compares it, whose numbers lose digits.
    pub fn as_text(self) -> String {
        format!("{:010}:{}:{:020}:{:020}:{}:{}", self.round, self.rank, self.rows, self.ended, u8::from(self.done), u8::from(self.answered))
    }
}

pub(super) fn ended(counts: &BatchCounts) -> u64 {
    counts.success + counts.failed + counts.aborted
}

fn rank(status: Option<BatchStatus>) -> u8 {
    match status {
        None => 0,
        Some(BatchStatus::Wait) => 1,
        Some(BatchStatus::Queued) => 2,
        Some(BatchStatus::Inprog) => 3,
        Some(BatchStatus::Success | BatchStatus::Failed | BatchStatus::Aborted) => 4,
    }
}

impl Snapshot {
    /// A batch as the store knows it. The answer of a slow query is not part of that; see [`Snapshot::with_answer`].
    pub fn of(batch: &Batch) -> Snapshot {
        Snapshot {
            id: batch.id,
            app: batch.app.clone(),
            op: batch.op.clone(),
            kind: batch.kind,
            round: batch.round,
            status: batch.status,
            counts: batch.counts,
            said: None,
            files: batch.files.clone(),
            done: batch.step == BatchStep::Done,
            answer: None,
        }
    }

    #[must_use]
    pub fn with_answer(self, answer: Option<QueryAnswer>) -> Snapshot {
        Snapshot { answer, ..self }
    }

    /// Nothing of it will change any more, and nothing is missing. A batch with rows that did not succeed may be retried.
    pub fn is_settled(&self) -> bool {
        self.done
            && match self.kind {
                ProcessorKind::Batch => self.status == BatchStatus::Success,
                ProcessorKind::SlowQuery => self.status.is_final() && self.answer.is_some(),
            }
    }

    pub(super) fn age(&self) -> Age {
        let (rank, ended) = (rank(Some(self.status)), ended(&self.counts));
        Age { round: self.round, rank, rows: self.counts.rows, ended, done: self.done, answered: self.answer.is_some() }
    }

    /// About how many bytes it holds.
    pub(super) fn weight(&self) -> usize {
        let answer = self.answer.as_ref().map_or(0, |answer| {
            answer.output.as_ref().map_or(0, String::len)
                + answer.messages.iter().map(|message| 100 + message.values.iter().map(String::len).sum::<usize>()).sum::<usize>()
        });
        size_of::<Snapshot>()
            + self.app.len()
            + self.op.len()
            + self.files.len() * 150
            + self.said.as_ref().map_or(0, |(_, text)| text.len())
            + answer
    }

    pub(super) fn event(&self) -> Event {
        Event { id: self.id, round: self.round, status: self.status, counts: self.counts, said: self.said.clone(), done: self.done }
    }
}

impl Progress {
    fn age(&self) -> (u32, u8, u64, u64, bool) {
        (self.round, rank(self.status), self.counts.rows, ended(&self.counts), self.done)
    }

    /// Takes over what is not older. True when that changed anything.
    pub(super) fn merge(&mut self, event: &Event) -> bool {
        let said = event.said.clone().or_else(|| self.said.clone());
        let newer = Progress { round: event.round, status: Some(event.status), counts: event.counts, said, done: event.done };
        if newer.age() < self.age() || newer == *self {
            return false;
        }
        *self = newer;
        true
    }

    /// Counts of a round only grow, and the larger ones are the newer. True when that changed anything.
    pub(super) fn merge_counts(&mut self, round: u32, counts: BatchCounts) -> bool {
        let newer = (round, counts.rows, ended(&counts)) > (self.round, self.counts.rows, ended(&self.counts));
        if newer && round > self.round && self.round > 0 {
            *self = Progress { status: Some(BatchStatus::Inprog), ..Progress::default() };
        }
        if newer {
            (self.round, self.counts) = (round, counts);
        }
        newer
    }
}
