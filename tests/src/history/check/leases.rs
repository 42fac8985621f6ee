//! A lease is renewed, recorded under and given back by its owner alone, and only while it lives.

use std::collections::{BTreeMap, HashSet};

use super::{Case, holders, lease_token};
use crate::history::audit::{LeaseState, Step};
use crate::history::violation::{Findings, Rule};

pub fn judge(case: &Case<'_>, findings: &mut Findings) {
    let holders = holders(&case.evidence.leases, lease_token);
    let recording: HashSet<i64> = case.evidence.batches.iter().map(|step| step.change.xid).collect();
    let mut lives: BTreeMap<i64, Vec<&Step<LeaseState>>> = BTreeMap::new();
    for step in &case.evidence.leases {
        let Some(state) = step.before.as_ref().or(step.after.as_ref()) else { continue };
        lives.entry(state.lease_id).or_default().push(step);
    }
    for steps in lives.values() {
        let mut last: Option<&str> = None;
        for step in steps {
            let change = &step.change;
            findings.ensure(change.before.as_deref() == last, Rule::NothingUnderALostLease, || {
                format!("a lease changed behind the audit: {last:?}, {:?}", change.before)
            });
            last = change.after.as_deref();
            let Some(before) = &step.before else { continue };
            let owned = before.expires_at > change.began && lease_token(before).and_then(|token| holders.get(&token)) == Some(&change.who.as_str());
            let by_owner = match &step.after {
                // Its last row was recorded; or it was left by a batch that was aborted, and cleared away when it had ended.
                // Or it was cleared away when the batch was retried.
                None if case.ended_round(change.xid).is_some() => false,
                None => recording.contains(&change.xid) || before.expires_at > change.at,
                Some(after) if after.token == before.token => {
                    // A lease that nobody owns is touched when a part of it is taken.
                    before.token != 0
                }
                // Given back, or (a crash) split by whoever takes it over.
                Some(after) if after.token == 0 => after.crashes == before.crashes,
                Some(_) => {
                    findings.ensure(before.expires_at <= change.at, Rule::NothingUnderALostLease, || {
                        format!("{} took a lease over that lived: {before:?}", change.who)
                    });
                    false
                }
            };
            findings.ensure(!by_owner || owned, Rule::NothingUnderALostLease, || {
                let owner = lease_token(before).and_then(|token| holders.get(&token));
                format!("{} changed the lease of {owner:?} at {}: {before:?} became {:?}", change.who, change.began, step.after)
            });
        }
    }
}
