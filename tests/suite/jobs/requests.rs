//! Requests: their names, terms and deadlines, and those that are refused.

use std::time::Duration;

use rowmill::jobs::{BatchRequest, JobError, QueryRequest, ScheduleRequest};
use rowmill::model::{App, BatchFilter, BatchStatus, JsonText, PartialTerms, Policy, RetryRows, Timestamp};

use super::{Site, is_store, on_each_store, refused, transaction};
use crate::support::guests;

on_each_store! {
    names_are_the_same_however_they_are_composed
    names_that_were_stored_as_they_were_given_are_found
    terms_that_cannot_hold_together_are_refused
    a_deadline_in_the_past_is_refused
}

async fn names_are_the_same_however_they_are_composed(site: Site) {
    let jobs = site.jobs.clone();
    let (composed, decomposed) = ("größe", "gro\u{308}ße");
    jobs.register_app(&App { weight: 3, ..App::named(decomposed) }).await.unwrap();
    jobs.register_processor(decomposed, "PRU\u{308}FEN", guests::read("bank-transactions")).await.unwrap();
    let request = |app: &str, group: &str, key: &str| BatchRequest::new(app, "Prüfen").with_rows(vec![transaction(1)]).in_group(group).with_key(key);
    let id = jobs.batch_submit(request(composed, decomposed, composed)).await.unwrap();
    assert_eq!(jobs.batch_submit(request(decomposed, composed, decomposed)).await.unwrap(), id);
    let batch = jobs.store().read_batch(id).await.unwrap();
    assert_eq!((batch.app.as_str(), batch.op.as_str(), batch.group.as_deref()), (composed, "prüfen", Some(composed)));
    assert_eq!(jobs.restricted_to(decomposed).read_group(composed, decomposed).await.unwrap().batches.all, 1);
    assert_eq!(jobs.id_of_key(decomposed, decomposed).unwrap(), id);
    let filter = BatchFilter { group: Some(decomposed.to_owned()), ..BatchFilter::of(decomposed) };
    assert_eq!(jobs.list_batches(&filter, None, 10).await.unwrap().batches.iter().map(|found| found.id).collect::<Vec<_>>(), [id]);
    let groups = jobs.list_groups(decomposed, None, 10).await.unwrap();
    assert_eq!(groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(), [composed]);
    assert_eq!(jobs.list_groups(composed, Some(decomposed), 10).await.unwrap(), []);
    assert_eq!(jobs.list_versions(decomposed, Some("PRÜFEN")).await.unwrap().len(), 1);
    let apps = jobs.list_apps().await.unwrap();
    assert_eq!(apps.iter().filter(|app| app.name.starts_with("gr")).map(|app| (app.name.as_str(), app.weight)).collect::<Vec<_>>(), [(composed, 3)]);
    let nightly = ScheduleRequest::batch(decomposed, "@daily", BatchRequest::new(decomposed, "prüfen").with_rows(vec![transaction(1)]));
    jobs.put_schedule(nightly).await.unwrap();
    assert_eq!(jobs.read_schedule(composed, composed).await.unwrap().name, composed);
    jobs.pause_schedule(decomposed, decomposed).await.unwrap();
    jobs.remove_schedule(composed, decomposed).await.unwrap();

    for name in ["", "a ", "a\u{200b}"] {
        is_store(&jobs.register_app(&App::named(name)).await.unwrap_err(), "the name of an app");
        is_store(&jobs.batch_submit(request(composed, name, "other")).await.unwrap_err(), "the name of a group");
        let schedule = ScheduleRequest::batch(name, "@daily", BatchRequest::new(composed, "prüfen").with_rows(vec![transaction(1)]));
        is_store(&jobs.put_schedule(schedule).await.unwrap_err(), "the name of a schedule");
    }
}

/// Apps, groups and schedules have decomposed names and names with spaces from when these were stored as they were given.
async fn names_that_were_stored_as_they_were_given_are_found(site: Site) {
    let jobs = site.jobs.clone();
    for (composed, old) in [("größe", "gro\u{308}ße"), ("stock", "stock ")] {
        let op = "validate";
        let request = || BatchRequest::new(composed, op).with_rows(vec![transaction(1)]);
        jobs.register_processor(composed, op, guests::read("bank-transactions")).await.unwrap();
        let id = jobs.batch_submit(request().in_group(composed)).await.unwrap();
        jobs.put_schedule(ScheduleRequest::batch(composed, "@daily", request())).await.unwrap();
        jobs.register_app(&App::named(composed)).await.unwrap();
        site.rename(composed, old).await;

        let filter = BatchFilter { group: Some(old.to_owned()), ..BatchFilter::of(old) };
        let found = jobs.list_batches(&filter, None, 10).await.unwrap().batches;
        assert_eq!(found.iter().map(|batch| (batch.id, batch.app.as_str())).collect::<Vec<_>>(), [(id, old)]);
        assert_eq!(jobs.list_groups(old, None, 10).await.unwrap().len(), 1);
        assert_eq!(jobs.list_groups(old, Some(old), 10).await.unwrap(), []);
        assert_eq!(jobs.read_group(old, old).await.unwrap().batches.all, 1);
        jobs.seal_group(old, old).await.unwrap();
        assert_eq!(jobs.list_versions(old, Some(op)).await.unwrap().len(), 1);
        jobs.activate(old, op, 1).await.unwrap();
        assert!(jobs.usage(old, None, Timestamp(0), Timestamp(3_600_000)).await.unwrap().is_empty());
        assert_eq!(jobs.list_schedules(Some(old), None, 10).await.unwrap().len(), 1);
        assert_eq!(jobs.next_ticks(old, old, 1).await.unwrap().len(), 1);
        jobs.pause_schedule(old, old).await.unwrap();
        jobs.resume_schedule(old, old).await.unwrap();
        jobs.remove_schedule(old, old).await.unwrap();
        jobs.deactivate(old, op, 1).await.unwrap();
        // Nothing comes in under such a name, and nothing of it is another app's.
        assert!(jobs.batch_submit(BatchRequest::new(old, op).with_rows(vec![transaction(1)])).await.is_err());
        assert!(jobs.list_batches(&BatchFilter::of(composed), None, 10).await.unwrap().batches.is_empty());
        if old.trim() == old {
            let page = jobs.restricted_to(composed).list_batches(&BatchFilter::of(old), None, 10).await.unwrap();
            assert!(page.batches.is_empty());
        }
        assert_eq!(jobs.batch_abort(id, None).await.unwrap().status, BatchStatus::Aborted);
    }
}

async fn terms_that_cannot_hold_together_are_refused(site: Site) {
    let jobs = site.jobs.clone();
    let of = |terms: PartialTerms| BatchRequest::new("bank", "validate").with_rows(vec![transaction(1)]).with_terms(terms);
    let seconds = |seconds: u64| Some(Duration::from_secs(seconds));
    let crossed = || PartialTerms { backoff: seconds(10), backoff_max: seconds(5), ..PartialTerms::default() };
    let empty = || PartialTerms { retry_codes: Some(vec![String::new()]), ..PartialTerms::default() };
    is_store(
        &jobs.batch_submit(of(crossed())).await.unwrap_err(),
        "the second attempt comes 10s after the first, but at most 5s may lie between two",
    );
    is_store(&jobs.batch_submit(of(empty())).await.unwrap_err(), "a code of a rule for retries is empty");
    for terms in [crossed(), empty()] {
        is_store(&jobs.put_policy(&Policy { terms: terms.clone(), ..Policy::of("bank", None) }).await.unwrap_err(), "");
        let nightly = ScheduleRequest::batch("nightly", "@daily", of(terms));
        is_store(&jobs.put_schedule(nightly).await.unwrap_err(), "");
    }
    // One that is said follows the other.
    let id = jobs.batch_submit(of(PartialTerms { backoff: seconds(600), ..PartialTerms::default() })).await.unwrap();
    assert_eq!(jobs.store().read_batch(id).await.unwrap().terms.retries.backoff_max, Duration::from_secs(600));
}

async fn a_deadline_in_the_past_is_refused(mut site: Site) {
    let jobs = site.jobs.clone();
    let now = jobs.store().read_clock().await.unwrap();
    let request =
        |deadline_at| BatchRequest { deadline_at: Some(deadline_at), ..BatchRequest::new("bank", "validate").with_rows(vec![transaction(1)]) };
    for deadline in [Timestamp(0), now] {
        let said = refused!(jobs.batch_submit(request(deadline)).await, JobError::DeadlinePassed { .. });
        assert!(said.starts_with(&format!("the deadline {deadline} has passed: the clock of the store says 20")), "{said}");
        let query = QueryRequest { deadline_at: Some(deadline), ..QueryRequest::new("bank", "statement", JsonText::default()) };
        refused!(jobs.slow_query_submit(query).await, JobError::DeadlinePassed { .. });
    }
    // A batch with a key that was submitted in time is found again when its deadline is over.
    let keyed = |deadline| BatchRequest { key: Some("k".to_owned()), ..request(deadline) };
    let later = now.after(Duration::from_secs(3));
    jobs.set_paused("bank", Some("validate"), true).await.unwrap();
    let id = jobs.batch_submit(keyed(later)).await.unwrap();
    site.begin_work();
    assert_eq!(site.wait(id).await.status, BatchStatus::Aborted, "it ends at its deadline");
    assert_eq!(jobs.batch_submit(keyed(later)).await.unwrap(), id);
    let rows = RetryRows { deadline_at: Some(now), aborted: true, ..RetryRows::default() };
    refused!(jobs.batch_retry(id, &rows).await, JobError::DeadlinePassed { .. });
    site.end_work().await;
}
