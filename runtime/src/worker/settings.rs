//! How a worker works.

use std::time::Duration;

use crate::grants::GrantSettings;
use crate::model::{Keep, Limits, WorkerInfo};

/// How a worker works.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// For people who look at workers and leases. One at a time has it.
    pub name: String,
    /// Leases of batches that run at the same time.
    pub slots: u32,
    /// Slow queries that run at the same time, beside them.
    pub query_slots: u32,
    /// Between two signs of life.
    pub heartbeat: Duration,
    /// A lease should hold about this much work.
    pub lease_target: Duration,
    /// Rows of a lease, at most.
    pub lease_rows_max: u32,
    /// A drain stops rows that still run after this time, and gives them back.
    pub drain_grace: Duration,
    /// What rows of apps without limits of their own may use.
    pub limits: Limits,
    /// How long what is done is kept, where no policy says anything.
    pub keep: Keep,
    /// What it has for apps that were granted something.
    pub grants: GrantSettings,
    /// What rows of an app may use at most, whatever its limits say.
    pub limits_max: Limits,
    /// Memory of all guests that live at the same time, by the limits of their apps: a lease whose guest would not fit begins later.
    pub memory_bytes: u64,
    /// Whether it waits until the store and the object store come back when they fail. Else it ends.
    pub outlasts_failures: bool,
    /// Whether it ends once there is nothing left to do, now or later.
    pub ends_when_idle: bool,
}

impl WorkerSettings {
    /// For a process on this machine: twice as many slots as cores, since a slot waits while its lease is claimed and read.
    pub fn local() -> WorkerSettings {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        WorkerSettings {
            name: format!("{}-{}", gethostname::gethostname().to_string_lossy(), std::process::id()),
            slots: u32::try_from(cores * 2).unwrap_or(u32::MAX),
            query_slots: u32::try_from(cores).unwrap_or(u32::MAX),
            heartbeat: Duration::from_secs(10),
            lease_target: Duration::from_millis(250),
            lease_rows_max: 5_000,
            drain_grace: Duration::from_secs(10),
            limits: Limits::default(),
            keep: Keep::default(),
            grants: GrantSettings::default(),
            limits_max: Limits::most(),
            memory_bytes: u64::MAX,
            outlasts_failures: false,
            ends_when_idle: false,
        }
    }

    /// Instances of guests that may live at the same time: in each slot, in as many that are told of their batch's end, those that still close, and those that are kept warm.
    pub fn instances_max(&self) -> u32 {
        self.slots.saturating_add(self.query_slots).saturating_mul(3).saturating_add(self.slots).saturating_add(2)
    }

    /// What one row of an app may use that was given this.
    pub fn limits_of(&self, given: Option<Limits>) -> Limits {
        given.map_or_else(|| self.limits.clone(), |limits| limits.at_most(&self.limits_max))
    }

    /// A lease lives this long without a sign of its worker: one that comes late is forgiven, and what a dead one held is run again within two heartbeats.
    pub fn lease_ttl(&self) -> Duration {
        self.heartbeat * 5 / 3
    }

    /// How it presents itself.
    pub(super) fn info(&self, draining: bool) -> WorkerInfo {
        WorkerInfo {
            name: self.name.clone(),
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            pid: std::process::id(),
            slots: self.slots,
            query_slots: self.query_slots,
            draining,
        }
    }
}
