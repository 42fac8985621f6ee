//! Everything that is left of a run is read and judged, batch by batch.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures_util::future::join_all;
use rowmill::blobs::Blobs;
use rowmill::model::{Batch, BatchId, RecordedOutcome};
use rowmill::store::{PgStore, ResultCursor, Store, StoreError};
use serde::Serialize;
use sqlx::{Connection, PgConnection};

use super::History;
use super::audit::{self, LeaseState};
use super::chaos::Done;
use super::check::{Case, groups};
use super::client::{Abort, BatchRecord};
use super::expect::is_quarantined;
use super::plan::APPS;
use super::violation::{Findings, Rule, Violation};

/// Of these the report holds the first.
const VIOLATIONS_SHOWN: usize = 30;
const PAGE_ROWS: u32 = 5_000;

/// Objects that were read once.
#[derive(Default)]
pub struct Objects(HashMap<String, Result<Vec<u8>, String>>);

/// What a run showed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub seed: u64,
    pub seconds: u64,
    pub workers: usize,
    pub workers_started: usize,
    /// Of these, by something that was down.
    pub workers_refused: u64,
    pub failures: Done,
    pub batches: u64,
    pub rows: u64,
    pub outcomes: u64,
    pub files: u64,
    pub aborted_by_clients: u64,
    pub discarded: u64,
    /// After their end.
    pub removed: u64,
    pub retried_rows: u64,
    /// Batches that were retried by their clients, and their rows that were run again after they had failed.
    pub batches_retried: u64,
    pub batches_chained: u64,
    pub groups_ended: u64,
    pub rows_run_again: u64,
    pub quarantined_rows: u64,
    /// Leases of rows that ended without their worker, and were taken over.
    pub leases_taken_over: u64,
    pub polls: u64,
    pub board_polls: u64,
    /// The shared status told something older than before, after Redis had lost everything.
    pub board_went_back: u64,
    /// Comparisons of counts with rows, in one statement each.
    pub snapshots: u64,
    /// Requests of clients that failed, and were tried again.
    pub requests_failed: u64,
    /// Queries that came in with a lease, which their client then left to others.
    pub queries_leased_at_once: u64,
    pub violations: usize,
    pub rules_broken: BTreeMap<Rule, usize>,
    pub found: Vec<Violation>,
}

impl History {
    /// Judges what is in the database now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn judge(&self) -> anyhow::Result<Report> {
        self.judge_database(&self.stage.postgres.url(), &mut Objects::default()).await
    }

    /// Judges what is in a database, which may be a copy of this run's.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn judge_database(&self, url: &str, objects: &mut Objects) -> anyhow::Result<Report> {
        let settings = rowmill::store::PgSettings { url: url.to_owned(), ..self.stage.store_settings(3) };
        let (store, mut db) = (PgStore::connect(&settings).await?, PgConnection::connect(url).await?);
        let blobs = self.stage.blobs()?;
        let mut report = self.begin_report();
        let mut found = self.found.clone();
        found.extend(self.stage.fallen.iter().map(|fallen| Violation { rule: Rule::WorkersGoOn, batch: None, detail: fallen.clone() }));
        for record in &self.records {
            report.add_record(record);
            let Some(case) = self.read_case(record, &mut db, &store, &blobs, objects).await? else {
                if record.submitted && !record.discarded {
                    let detail = "it was acknowledged, and never was".to_owned();
                    found.push(Violation { rule: Rule::AcknowledgedIsKept, batch: Some(record.id), detail });
                }
                continue;
            };
            report.add_case(&case);
            found.extend(case.judge());
            if let Some(removed) = &record.removed {
                let mut findings = Findings::of(record.id);
                removed.judge(&mut db, &blobs, &mut findings).await?;
                found.extend(findings.found);
            }
        }
        found.extend(self.judge_strangers(&mut db).await?);
        found.extend(judge_limits(&mut db).await?);
        let (groups_ended, of_groups) = groups::judge(&mut db, &self.sealed).await?;
        report.groups_ended = groups_ended;
        found.extend(of_groups);
        store.close().await;
        db.close().await?;
        report.violations = found.len();
        for violation in found {
            let broken = report.rules_broken.entry(violation.rule).or_default();
            *broken += 1;
            if *broken <= VIOLATIONS_SHOWN {
                report.found.push(violation);
            }
        }
        Ok(report)
    }

    fn begin_report(&self) -> Report {
        Report {
            seed: self.options.seed,
            seconds: self.options.duration.as_secs(),
            workers: self.options.workers,
            workers_started: self.stage.started,
            workers_refused: self.stage.refused_starts,
            failures: self.done.clone(),
            batches: 0,
            rows: 0,
            outcomes: 0,
            files: 0,
            aborted_by_clients: 0,
            discarded: 0,
            removed: 0,
            retried_rows: 0,
            batches_retried: 0,
            batches_chained: 0,
            groups_ended: 0,
            rows_run_again: 0,
            quarantined_rows: 0,
            leases_taken_over: 0,
            polls: 0,
            board_polls: 0,
            board_went_back: 0,
            snapshots: self.snapshots,
            requests_failed: self.failures,
            queries_leased_at_once: self.leased_at_once,
            violations: 0,
            rules_broken: BTreeMap::new(),
            found: Vec::new(),
        }
    }

    async fn read_case<'a>(
        &'a self,
        record: &'a BatchRecord,
        db: &mut PgConnection,
        store: &PgStore,
        blobs: &Blobs,
        objects: &mut Objects,
    ) -> anyhow::Result<Option<Case<'a>>> {
        let evidence = match &record.removed {
            Some(removed) => Some(removed.evidence.clone()),
            None => audit::read(db, record.id).await?,
        };
        let Some(evidence) = evidence else { return Ok(None) };
        let plan = record.key.plan();
        let (plan, unmet) = match record.follows {
            None => (plan, None),
            Some(after) => {
                let first = audit::read(db, after.batch).await?;
                first.map_or((plan.chained(&[]), None), |first| first.next_of(&plan, after, record.round))
            }
        };
        if let Some(removed) = &record.removed {
            let (batch, results, files) = (Some(removed.batch.clone()), removed.results.clone(), removed.files.clone());
            return Ok(Some(Case { record, plan, unmet, evidence, batch, results, files, disturbances: &self.done.disturbances }));
        }
        let batch = match store.read_batch(record.id).await {
            Err(StoreError::NotFound(_)) => None,
            read => Some(read?),
        };
        let results = if batch.is_some() { read_results(store, record.id).await? } else { Vec::new() };
        let files = match &batch {
            Some(batch) => objects.read_files(blobs, batch).await,
            None => BTreeMap::new(),
        };
        Ok(Some(Case { record, plan, unmet, evidence, batch, results, files, disturbances: &self.done.disturbances }))
    }

    /// Batches that no client knows.
    async fn judge_strangers(&self, db: &mut PgConnection) -> anyhow::Result<Vec<Violation>> {
        let known: HashSet<String> = self.records.iter().map(|record| record.id.to_string()).collect();
        let there: Vec<String> = sqlx::query_scalar("SELECT batch_id::text FROM rowmill.batches").fetch_all(db).await?;
        let mut findings = Findings::of(None);
        for id in there {
            findings.ensure(known.contains(&id), Rule::AcknowledgedIsKept, || format!("nobody submitted batch {id}"));
        }
        Ok(findings.found)
    }
}

impl Report {
    fn add_record(&mut self, record: &BatchRecord) {
        self.batches += 1;
        self.rows += record.rows as u64;
        self.aborted_by_clients += u64::from(record.abort == Abort::Took);
        self.discarded += u64::from(record.discarded);
        self.removed += u64::from(record.removed.is_some());
        self.batches_chained += u64::from(record.follows.is_some());
        self.batches_retried += u64::from(record.round > 1);
        self.polls += record.witness.polls;
        self.board_polls += record.witness.board_polls;
        self.board_went_back += record.witness.board_went_back;
    }

    fn add_case(&mut self, case: &Case<'_>) {
        self.outcomes += case.evidence.outcomes_now.len() as u64;
        self.files += case.files.len() as u64;
        self.retried_rows += case.results.iter().filter(|result| result.attempts > 1).count() as u64;
        self.rows_run_again += case.evidence.past_now.len() as u64;
        self.quarantined_rows += case.results.iter().filter(|result| is_quarantined(result)).count() as u64;
        let crashed = |step: &&audit::Step<LeaseState>| {
            step.before.as_ref().zip(step.after.as_ref()).is_some_and(|(before, after)| after.crashes > before.crashes)
        };
        self.leases_taken_over += case.evidence.leases.iter().filter(crashed).count() as u64;
    }
}

pub(super) async fn read_results(store: &PgStore, id: BatchId) -> Result<Vec<RecordedOutcome>, StoreError> {
    let (mut results, mut after) = (Vec::new(), None);
    loop {
        let page = store.read_results(id, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { return Ok(results) };
        after = Some(ResultCursor { line: last.line, row_no: last.row_no });
        results.extend(page);
    }
}

impl Objects {
    pub(super) async fn read_files(&mut self, blobs: &Blobs, batch: &Batch) -> BTreeMap<String, Result<Vec<u8>, String>> {
        let missing = batch.files.iter().filter(|file| !self.0.contains_key(&file.object));
        let read = join_all(missing.map(async |file| (file.object.clone(), read_object(blobs, &file.object).await))).await;
        self.0.extend(read);
        batch.files.iter().map(|file| (file.name.clone(), self.0[&file.object].clone())).collect()
    }
}

async fn read_object(blobs: &Blobs, object: &str) -> Result<Vec<u8>, String> {
    match tokio::time::timeout(Duration::from_secs(60), blobs.get(object)).await {
        Err(_) => Err("it is not read in a minute".to_owned()),
        Ok(read) => read.map(|bytes| bytes.to_vec()).map_err(|error| format!("it cannot be read: {error}")),
    }
}

/// At no claim an app had more leases than its limit.
async fn judge_limits(db: &mut PgConnection) -> anyhow::Result<Vec<Violation>> {
    let mut findings = Findings::of(None);
    for (app, _, limit) in APPS {
        let Some(limit) = limit else { continue };
        let changes: Vec<(i64, Option<String>, Option<String>)> = sqlx::query_as(
            "SELECT at, before, after FROM audit.changes WHERE source = 'leases' AND coalesce(after, before)::json->>'app' = $1 ORDER BY seq",
        )
        .bind(app)
        .fetch_all(&mut *db)
        .await?;
        let mut lives: BTreeMap<i64, i64> = BTreeMap::new();
        for (at, before, after) in changes {
            let read = |text: Option<String>| text.map(|text| serde_json::from_str::<LeaseState>(&text)).transpose();
            let (before, after) = (read(before)?, read(after)?);
            let Some(id) = before.as_ref().or(after.as_ref()).map(|lease| lease.lease_id) else { continue };
            let token = |lease: &Option<LeaseState>| lease.as_ref().map_or(0, |lease| lease.token);
            lives.remove(&id);
            if let Some(lease) = after.as_ref().filter(|lease| lease.token != 0) {
                lives.insert(id, lease.expires_at);
            }
            if token(&after) != 0 && token(&after) != token(&before) {
                let running = lives.values().filter(|ends| **ends > at).count();
                findings.ensure(running <= usize::try_from(limit)?, Rule::AppsKeepTheirLimit, || {
                    format!("{running} leases of the app {app} lived at {at}, and its limit is {limit}")
                });
            }
        }
    }
    Ok(findings.found)
}
