//! Plain types that every room speaks. This room imports nothing of ours.

mod app;
mod batch;
mod chain;
mod clock;
mod ending;
mod event;
mod failed;
mod grants;
mod group;
mod http_grant;
mod json;
mod keep;
mod lease;
mod limits;
mod log;
mod net;
mod outcome;
mod policy;
mod pooler;
mod processor;
mod quota;
mod round;
mod schedule;
mod terms;
mod text;
mod usage;
mod worker;

pub use app::{App, NAME_BYTES_MAX};
pub use batch::{Batch, BatchCounts, BatchFile, BatchId, BatchStatus, BatchStep, INPUT_BYTES_MAX, NewBatch, NewRow, OutputFile, ProcessorKind};
pub use chain::{After, AfterCondition};
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use ending::{Answer, Ending, RowRun};
pub use event::{BatchEvent, EventKind, EventPage, EventPosition, EventsOf, NoEventPosition};
pub use failed::{FailedPage, FailedPosition, FailedRow, FailedRows, NoFailedPosition};
pub use grants::{Capability, DirectoryGrant, GRANTS_BYTES_MAX, Grants, KeyValueGrant, ObjectsGrant, SqlGrant};
pub use group::{Group, GroupCounts, GroupState};
pub use http_grant::{HttpGrant, HttpRule, NoHttpRule, canonical_host, split_port};
pub use json::{JsonText, NotJson};
pub use keep::{Due, DueCounts, Keep, KeepFor, NoKeepFor, OpKey, Part, PartialKeep, PrunedParts, Pruning};
pub use lease::{ClaimRequest, ClaimedWork, FinishLease, Lease, LeaseKey, LeasedRow};
pub use limits::Limits;
pub use log::RowLog;
pub use net::{Net, NoNet};
pub use outcome::{Message, Piece, RecordedOutcome, RowResult, RowStatus, Verdict};
pub use policy::{Isolation, NoRate, PartialTerms, Policy, Rate};
pub use pooler::Pooler;
pub use processor::{CodeQuota, FoundOp, NOTE_BYTES_MAX, NewVersion, NotServed, OpStamp, ProcessorVersion, RegisteredVersion};
pub use quota::{AppBounds, AppQuota, Quota};
pub use round::{PastCursor, PastOutcome, PastRound, Retried, RetryRows};
pub use schedule::{
    ComingTicks, Missed, NewSchedule, Overlap, SCHEDULE_BYTES_MAX, SCHEDULE_ROWS_MAX, Schedule, ScheduleKey, TickAction, TickEnd, TickKey,
};
pub use terms::{FailureLimit, NoFailureLimit, RetryRule, Terms};
pub use text::{hex, printable, visible, without_controls};
pub use usage::{FuelHistogram, FuelProfile, Meter, UsageRecord};
pub use worker::{RunningLeases, WorkerInfo, WorkerRecord};
