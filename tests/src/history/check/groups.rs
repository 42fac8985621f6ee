//! A sealed group takes no batch any more, and ends once: with the last of its batches.

use std::collections::BTreeMap;

use serde::Deserialize;
use sqlx::PgConnection;

use crate::history::violation::{Findings, Rule, Violation};

/// A row of `groups`.
#[derive(Clone, Debug, Deserialize)]
struct GroupState {
    app: String,
    name: String,
    sealed_at: Option<i64>,
    ended_at: Option<i64>,
}

/// What is known of one group.
#[derive(Default)]
struct Known {
    sealed: Option<i64>,
    ended: Option<i64>,
    now: Option<GroupState>,
    /// The same as a text, to be compared with what is there.
    text: Option<String>,
}

/// Judges all groups of a run, and counts those that have ended. `sealed`: those whose seal a client was told of.
pub async fn judge(db: &mut PgConnection, sealed: &[(String, String)]) -> anyhow::Result<(u64, Vec<Violation>)> {
    // Not while the run goes on: there they would cost each change.
    sqlx::raw_sql(
        "CREATE INDEX IF NOT EXISTS changes_by_group ON audit.changes ((coalesce(after, before)::json->>'group_name')) WHERE source = 'batches';
         CREATE INDEX IF NOT EXISTS changes_by_new_group ON audit.changes ((after::json->>'group_name')) WHERE source = 'batches' AND before IS NULL;
         ANALYZE audit.changes",
    )
    .execute(&mut *db)
    .await?;
    let mut findings = Findings::of(None);
    let mut groups: BTreeMap<(String, String), Known> = BTreeMap::new();
    let changes: Vec<(i64, Option<String>, Option<String>)> =
        sqlx::query_as("SELECT seq, before, after FROM audit.groups ORDER BY seq").fetch_all(&mut *db).await?;
    for (seq, before, after) in changes {
        let read = |text: Option<String>| text.map(|text| serde_json::from_str::<GroupState>(&text)).transpose();
        let text = after.clone();
        let (before, after) = (read(before)?, read(after)?);
        let Some(group) = after.clone().or_else(|| before.clone()) else { continue };
        let known = groups.entry((group.app, group.name)).or_default();
        if let Some(after) = &after {
            let was = |of: fn(&GroupState) -> Option<i64>| before.as_ref().and_then(of);
            let (was_sealed, was_ended) = (was(|group| group.sealed_at), was(|group| group.ended_at));
            let stays = was_sealed.is_none_or(|at| after.sealed_at == Some(at)) && was_ended.is_none_or(|at| after.ended_at == Some(at));
            findings.ensure(stays, Rule::GroupsEndOnce, || format!("a group went from {before:?} to {after:?}"));
            if was_sealed.is_none() && after.sealed_at.is_some() {
                findings.ensure(known.sealed.replace(seq).is_none(), Rule::GroupsEndOnce, || format!("it was sealed twice: {after:?}"));
            }
            if was_ended.is_none() && after.ended_at.is_some() {
                findings.ensure(known.ended.replace(seq).is_none(), Rule::GroupsEndOnce, || format!("it ended twice: {after:?}"));
            }
        }
        (known.now, known.text) = (after, text);
    }
    let there: Vec<(String, String, String)> = sqlx::query_as("SELECT app, name, to_json(g)::text FROM rowmill.groups g").fetch_all(&mut *db).await?;
    let mut there: BTreeMap<_, _> = there.into_iter().map(|(app, name, text)| ((app, name), text)).collect();
    for (key, known) in &groups {
        let text = there.remove(key);
        findings.ensure(text == known.text, Rule::GroupsEndOnce, || format!("a group is {text:?}, and the last change made it {:?}", known.text));
        judge_batches(db, key, known, &mut findings).await?;
    }
    findings.ensure(there.is_empty(), Rule::GroupsEndOnce, || format!("nobody made these groups: {there:?}"));
    for (app, name) in sealed {
        let there = groups.get(&(app.clone(), name.clone())).is_some_and(|known| known.sealed.is_some());
        findings.ensure(there, Rule::GroupsEndOnce, || format!("the seal of the group {name} of {app} was acknowledged, and is not there"));
    }
    Ok((groups.values().filter(|known| known.ended.is_some()).count() as u64, findings.found))
}

/// Its batches, as they were when it was sealed and when it ended.
async fn judge_batches(db: &mut PgConnection, (app, name): &(String, String), known: &Known, findings: &mut Findings) -> anyhow::Result<()> {
    let late: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM audit.changes WHERE source = 'batches' AND before IS NULL AND after::json->>'app' = $1 AND after::json->>'group_name' = $2 AND seq > $3",
    )
    .bind(app)
    .bind(name)
    .bind(known.sealed.unwrap_or(i64::MAX))
    .fetch_one(&mut *db)
    .await?;
    findings.ensure(late == 0, Rule::GroupsEndOnce, || format!("{late} batches came into the group {name} of {app} behind its seal"));
    // What was done last to each batch, by the one who ended the group or before. One that was being retried at that moment had been done.
    let open: Vec<String> = sqlx::query_scalar(
        "SELECT c.after FROM (
            SELECT DISTINCT ON (batch_key) batch_key, before, after FROM audit.changes
            WHERE source = 'batches' AND coalesce(after, before)::json->>'app' = $1 AND coalesce(after, before)::json->>'group_name' = $2 AND seq < $3
            ORDER BY batch_key, seq DESC) c
         WHERE c.after IS NOT NULL AND c.after::json->>'step' <> 'done' AND NOT (coalesce(c.before::json->>'step', '') = 'done')",
    )
    .bind(app)
    .bind(name)
    .bind(known.ended.unwrap_or(0))
    .fetch_all(&mut *db)
    .await?;
    findings.ensure(open.is_empty(), Rule::GroupsEndOnce, || format!("the group {name} of {app} ended before {open:?}"));
    let waits: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM rowmill.batches WHERE app = $1 AND group_name = $2 AND step <> 'done')")
        .bind(app)
        .bind(name)
        .fetch_one(&mut *db)
        .await?;
    let must_have_ended = known.now.as_ref().is_some_and(|group| group.sealed_at.is_some()) && !waits;
    let has_ended = known.now.as_ref().is_some_and(|group| group.ended_at.is_some());
    findings.ensure(!must_have_ended || has_ended, Rule::GroupsEndOnce, || {
        format!("the group {name} of {app} is sealed, waits for no batch, and has not ended")
    });
    Ok(())
}
