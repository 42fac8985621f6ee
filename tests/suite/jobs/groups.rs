//! Groups of batches, and failed rows of whatever batch, for one app alone.

use rowmill::jobs::{BatchRequest, JobError};
use rowmill::model::{FailedRows, GroupState};

use super::{SOON, Site, is_store, on_each_store, refused, row, transaction};

on_each_store! {
    a_group_is_waited_for_and_is_its_apps_own
    failed_rows_are_their_apps_own
}

async fn a_group_is_waited_for_and_is_its_apps_own(mut site: Site) {
    let batch = |line| BatchRequest::new("bank", "validate").with_rows(vec![transaction(line)]).in_group("january");
    let keyed = batch(1).with_key("one");
    let id = site.jobs.batch_submit(keyed.clone()).await.unwrap();
    site.jobs.batch_submit(batch(2)).await.unwrap();
    site.jobs.batch_submit(batch(3).held().in_group("other")).await.unwrap();
    site.jobs.seal_group("bank", "january").await.unwrap();
    is_store(&site.jobs.batch_submit(batch(4)).await.unwrap_err(), "is sealed: no batch comes into it any more");
    // What is in it can be submitted again, and in another group it would be something else.
    assert_eq!(site.jobs.batch_submit(keyed.clone()).await.unwrap(), id);
    refused!(site.jobs.batch_submit(keyed.in_group("other")).await, JobError::KeyReused { .. });
    assert_eq!(site.jobs.read_group("bank", "january").await.unwrap().state(), GroupState::Sealed);
    let waiting = tokio::spawn({
        let jobs = site.jobs.clone();
        async move { jobs.wait_for_group("bank", "january").await.unwrap() }
    });
    site.begin_work();
    let group = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    assert_eq!((group.state(), group.batches.success, group.rows.success), (GroupState::Ended, 2, 2));
    site.end_work().await;
    let names: Vec<String> = site.jobs.list_groups("bank", None, 10).await.unwrap().into_iter().map(|group| group.name).collect();
    assert_eq!(names, ["january", "other"]);
    let page = site.jobs.list_groups("bank", Some("january"), 10).await.unwrap();
    assert_eq!((page.len(), page[0].name.as_str()), (1, "other"));
    assert!(site.jobs.list_groups("bank", Some("other"), 10).await.unwrap().is_empty());
    let sentence = refused!(site.jobs.read_group("bank", "march").await, JobError::NoGroup { .. });
    assert!(sentence.starts_with("app \"bank\" has no group \"march\""), "{sentence}");
    refused!(site.jobs.seal_group("bank", "march").await, JobError::NoGroup { .. });
    let shop = site.jobs.restricted_to("shop");
    refused!(shop.seal_group("bank", "other").await, JobError::OtherApp { .. });
    refused!(shop.read_group("bank", "other").await, JobError::OtherApp { .. });
    refused!(shop.list_groups("bank", None, 10).await, JobError::OtherApp { .. });
}

async fn failed_rows_are_their_apps_own(mut site: Site) {
    site.begin_work();
    let id = site.submit("validate", vec![transaction(1), row(2, "{}")]).await;
    site.wait(id).await;
    site.end_work().await;
    let page = site.jobs.restricted_to("bank").list_failed(&FailedRows::of("bank"), None, 10).await.unwrap();
    let [failed] = &page.rows[..] else { panic!("{page:?}") };
    assert_eq!((failed.batch, failed.row.line, failed.row.input.as_str(), page.next), (id, 2, "{}", None));
    refused!(site.jobs.restricted_to("shop").list_failed(&FailedRows::of("bank"), None, 10).await, JobError::OtherApp { .. });
}
