//! Plain types that every room speaks. This room imports nothing of ours.

mod app;
mod batch;
mod clock;
mod ending;
mod grants;
mod json;
mod lease;
mod limits;
mod net;
mod outcome;
mod policy;
mod pooler;
mod processor;
mod schedule;
mod terms;
mod text;
mod worker;

pub use app::{App, NAME_BYTES_MAX};
pub use batch::{Batch, BatchCounts, BatchFile, BatchId, BatchStatus, BatchStep, INPUT_BYTES_MAX, NewBatch, NewRow, OutputFile, ProcessorKind};
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use ending::{Answer, Ending, RowRun};
pub use grants::{
    Capability, DirectoryGrant, GRANTS_BYTES_MAX, Grants, HttpGrant, HttpRule, KeyValueGrant, NoHttpRule, SqlGrant, canonical_host, split_port,
};
pub use json::{JsonText, NotJson};
pub use lease::{ClaimRequest, ClaimedWork, FinishLease, Lease, LeaseKey, LeasedRow};
pub use limits::Limits;
pub use net::{Net, NoNet};
pub use outcome::{Message, Piece, RecordedOutcome, RowResult, RowStatus, Verdict};
pub use policy::{NoRate, PartialTerms, Policy, Rate};
pub use pooler::Pooler;
pub use processor::ProcessorVersion;
pub use schedule::{
    ComingTicks, Missed, NewSchedule, Overlap, SCHEDULE_BYTES_MAX, SCHEDULE_ROWS_MAX, Schedule, ScheduleKey, TickAction, TickEnd, TickKey,
};
pub use terms::{FailureLimit, NoFailureLimit, RetryRule, Terms};
pub use text::{hex, without_controls};
pub use worker::{RunningLeases, WorkerInfo, WorkerRecord};
