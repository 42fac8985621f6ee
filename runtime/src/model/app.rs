use serde::{Deserialize, Serialize};

use super::{AppQuota, Grants, Limits};

/// A tenant: what it may use, against the others. An app that was never registered has the defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    pub name: String,
    /// Its share of the work, against the weights of the other apps: 1 to 1,000.
    pub weight: u32,
    /// Leases that run at the same time, over all workers; a lease runs one row or query at a time. None for no limit.
    pub running_max: Option<u32>,
    /// What one row may use; what the processor was registered with when there is none. A worker looks at it when it begins with a batch.
    pub limits: Option<Limits>,
    /// What its processors may reach beyond their rows. Registering an app leaves it as it is: it is changed on its own.
    #[serde(default, skip_serializing_if = "Grants::is_empty")]
    pub grants: Grants,
    /// What its batches may hold.
    #[serde(default)]
    pub quota: AppQuota,
}

impl App {
    pub const WEIGHT_MAX: u32 = 1_000;

    /// An app with the defaults: weight 1, and no limits of its own.
    pub fn named(name: impl Into<String>) -> App {
        App { name: name.into(), weight: 1, running_max: None, limits: None, quota: AppQuota::default(), grants: Grants::default() }
    }
}
