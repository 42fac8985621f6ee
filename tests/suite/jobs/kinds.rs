//! One operation with a batch processor and a slow-query processor, as in Alya, with real guests.

use rowmill::jobs::{BatchRequest, JobError, QueryRequest, QueryState, ScheduleRequest};
use rowmill::model::{BatchId, BatchStatus, JsonText, ProcessorKind};
use rowmill::store::{StoreError, VersionError};

use super::{SOON, Site, on_each_store, refused, row, transaction};
use crate::support::guests;
use crate::support::wat::{Wat, answer};

on_each_store! {
    batches_and_queries_of_one_operation_run_beside_each_other
    a_query_that_is_remembered_does_not_outlive_its_processor
    schedules_submit_to_the_kind_that_they_mean
}

const QUESTION: &str = r#"{"account":"DE0123456789","from":"2026-01-01","to":"2026-01-31","opening_cents":500,"transactions":[]}"#;

fn question() -> QueryRequest {
    QueryRequest::new("bank", "accounts", JsonText::check(QUESTION).unwrap())
}

fn rows() -> BatchRequest {
    BatchRequest::new("bank", "Accounts").with_rows(vec![transaction(1)])
}

/// A batch processor that answers with 7.
fn other_rows() -> Vec<u8> {
    Wat::batch().body("process-row", &answer(2_000, 1)).fields("(data (i32.const 2000) \"7\")").module()
}

impl Site {
    async fn deploy_both(&self) {
        for (guest, kind, version) in [("bank-transactions", ProcessorKind::Batch, 1), ("account-statement", ProcessorKind::SlowQuery, 2)] {
            let registered = self.jobs.register_processor("bank", "Accounts", guests::read(guest)).await.unwrap();
            assert_eq!((registered.kind, registered.version), (kind, version));
        }
    }

    /// The version that a batch or a slow query ran with, successfully.
    async fn ran_with(&self, id: BatchId) -> u32 {
        let batch = self.wait(id).await;
        assert_eq!((batch.status, batch.op.as_str()), (BatchStatus::Success, "accounts"));
        batch.processor_version
    }
}

async fn batches_and_queries_of_one_operation_run_beside_each_other(mut site: Site) {
    let jobs = site.jobs.clone();
    site.deploy_both().await;
    site.begin_work();
    let run = async || {
        let batch = jobs.batch_submit(rows()).await.unwrap();
        let query = jobs.slow_query_submit(question()).await.unwrap();
        [site.ran_with(batch).await, site.ran_with(query).await]
    };
    assert_eq!(run().await, [1, 2]);
    let id = jobs.slow_query_submit(question()).await.unwrap();
    let answered = tokio::time::timeout(SOON, jobs.wait_for_query(id)).await.unwrap().unwrap();
    assert!(answered.output.as_ref().unwrap().contains(r#""closing_cents":500"#), "{answered:?}");
    let QueryState::Done(again) = jobs.slow_query_done(id).await.unwrap() else { panic!("it has ended") };
    assert_eq!(again, answered);
    // The same code again is the same version, whatever was deployed of the other kind since.
    assert_eq!(jobs.deploy("bank", "accounts", guests::read("bank-transactions"), Some("again")).await.unwrap().version, 1);
    assert_eq!(jobs.register_batch_processor("bank", "accounts", other_rows()).await.unwrap().version, 3);
    assert_eq!(run().await, [3, 2]);
    let said = refused!(jobs.rollback("bank", "accounts", None).await, JobError::Store(StoreError::Version(VersionError::BothServe { .. })));
    assert!(said.contains("a batch processor (version 3) and a slow-query processor (version 2)"), "{said}");
    assert_eq!(jobs.rollback("bank", "accounts", Some(ProcessorKind::Batch)).await.unwrap().version, 1);
    assert_eq!(run().await, [1, 2]);
    // Each kind goes on its own.
    assert_eq!(jobs.deactivate("bank", "accounts", 1).await.unwrap().kind, ProcessorKind::Batch);
    let said = refused!(jobs.batch_submit(rows()).await, JobError::NoProcessor(_));
    assert!(said.contains("(its slow-query processor does not run batches)"), "{said}");
    let query = jobs.slow_query_submit(question()).await.unwrap();
    assert_eq!(site.ran_with(query).await, 2);
    site.end_work().await;
    let other = jobs.restricted_to("shop");
    refused!(other.deactivate("bank", "accounts", 2).await, JobError::OtherApp { .. });
    refused!(other.rollback("bank", "accounts", Some(ProcessorKind::SlowQuery)).await, JobError::OtherApp { .. });
}

async fn a_query_that_is_remembered_does_not_outlive_its_processor(site: Site) {
    site.deploy_both().await;
    let id = site.jobs.slow_query_submit(question()).await.unwrap();
    assert_eq!(site.store.read_batch(id).await.unwrap().processor_version, 2);
    // As another process does it.
    site.store.deactivate_processor("bank", "accounts", 2).await.unwrap();
    let said = refused!(site.jobs.slow_query_submit(question()).await, JobError::NoProcessor(_));
    assert!(said.contains("(its batch processor does not run slow queries)"), "{said}");
    let id = site.jobs.batch_submit(rows()).await.unwrap();
    assert_eq!(site.store.read_batch(id).await.unwrap().processor_version, 1);
}

async fn schedules_submit_to_the_kind_that_they_mean(mut site: Site) {
    const SECOND: &str = "* * * * * *";
    // The schedule is there before the processor of its kind.
    let jobs = site.jobs.clone();
    jobs.register_processor("bank", "accounts", guests::read("bank-transactions")).await.unwrap();
    jobs.put_schedule(ScheduleRequest::query("questions", SECOND, question())).await.unwrap();
    jobs.register_processor("bank", "accounts", guests::read("account-statement")).await.unwrap();
    let request = BatchRequest::new("bank", "accounts").with_rows(vec![transaction(1), row(2, "{}")]);
    jobs.put_schedule(ScheduleRequest::batch("rows", SECOND, request)).await.unwrap();
    site.begin_work();
    for (name, kind, version) in [("questions", ProcessorKind::SlowQuery, 2), ("rows", ProcessorKind::Batch, 1)] {
        let ticked = super::schedules::until(&site, name, |schedule| schedule.last_batch.is_some()).await;
        let batch = site.wait(ticked.last_batch.unwrap()).await;
        assert_eq!((batch.kind, batch.processor_version), (kind, version));
    }
    site.end_work().await;
}
