//! Batches of two clients come into the same groups, which one of them seals.

use rowmill::model::ProcessorKind;
use rowmill::store::{Store, StoreError};

use super::client::{BatchRecord, World};
use super::plan::{APPS, BatchPlan, PlanKey};
use super::violation::{Findings, Rule};
use crate::random::Random;

/// Batches of a client that go by one group.
const BATCHES_EACH: u32 = 3;

impl PlanKey {
    /// The name of the group that a batch comes into, one of its app's.
    pub fn group(self, plan: &BatchPlan) -> Option<String> {
        // Not with the plan's dice, which others go by.
        let mut dice = Random::new(self.seed ^ (u64::from(self.client) << 20) ^ u64::from(self.number) ^ 0x9e37);
        (plan.kind == ProcessorKind::Batch && dice.below(3) > 0).then(|| self.group_name())
    }

    fn group_name(self) -> String {
        format!("{}-{}", self.client / 2, self.number / BATCHES_EACH)
    }

    /// Whether this client seals the group with this batch. The other may come later, or be far ahead.
    fn seals(self) -> bool {
        self.client.is_multiple_of(2) && self.number % BATCHES_EACH == BATCHES_EACH - 1
    }
}

impl World {
    /// Seals the groups of a name, while batches of them run and others come in.
    pub async fn seal_groups(&self, key: PlanKey, findings: &mut Findings) -> Option<()> {
        if !key.seals() {
            return Some(());
        }
        let name = key.group_name();
        for (app, _, _) in APPS {
            match self.persist(|| self.store.seal_group(app, &name)).await? {
                (_, Ok(true)) => self.sealed().push((app.to_owned(), name.clone())),
                (_, Ok(false)) => {}
                (_, Err(error)) => findings.add(Rule::GroupsEndOnce, format!("the seal of the group {name} said {error}")),
            }
        }
        Some(())
    }

    /// A group refused a batch: then it is sealed. True when the batch is to come in alone; it may also be there from a try whose answer was lost.
    pub async fn came_too_late(&self, app: &str, record: &mut BatchRecord, error: &StoreError, findings: &mut Findings) -> Option<bool> {
        let name = record.group.clone().unwrap_or_default();
        let (_, group) = self.persist(|| self.store.read_group(app, &name)).await?;
        let sealed = matches!(&group, Ok(Some(group)) if group.sealed_at.is_some());
        findings.ensure(sealed, Rule::GroupsEndOnce, || format!("{error}, and it is {group:?}"));
        let (_, there) = self.persist(|| self.store.read_batch(record.id)).await?;
        if there.is_err() {
            record.group = None;
        }
        Some(there.is_err())
    }

    /// Batches of a group are each counted once, and it has ended only once it was sealed.
    pub async fn look_at_group(&self, app: &str, record: &BatchRecord, findings: &mut Findings) {
        let Some(name) = &record.group else { return };
        // What is down is not looked at.
        let Ok(group) = self.store.read_group(app, name).await else { return };
        let whole = group.as_ref().is_some_and(|group| {
            let of = group.batches;
            of.all > 0 && of.all == of.open + of.success + of.failed + of.aborted && (group.ended_at.is_none() || group.sealed_at.is_some())
        });
        findings.ensure(whole, Rule::GroupsEndOnce, || format!("the group of a batch is {group:?}"));
    }
}
