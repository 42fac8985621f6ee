use serde::Serialize;

use super::Timestamp;

/// A worker as it registers itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerInfo {
    /// Its name, of which there is one at a time.
    pub name: String,
    pub host: String,
    pub pid: u32,
    /// Batch leases that it runs at the same time.
    pub slots: u32,
    /// Slow queries that it runs at the same time, beside those.
    pub query_slots: u32,
    /// It takes nothing more, and ends what runs.
    pub draining: bool,
}

/// A worker as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerRecord {
    #[serde(flatten)]
    pub info: WorkerInfo,
    pub started_at: Timestamp,
    /// Its last heartbeat.
    pub seen_at: Timestamp,
    /// What it runs now.
    pub runs: Vec<RunningLeases>,
}

/// Leases of one app and operation that a worker holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunningLeases {
    pub app: String,
    pub op: String,
    pub leases: u32,
    /// Rows of these leases that are not recorded yet.
    pub rows: u64,
}
