//! Groups of batches.

use rowmill::model::{BatchCounts, BatchId, Group, GroupCounts, NewBatch, RetryRows};
use rowmill::store::StoreError;

use super::build::{SECOND, batch, counts, failure, held, rows};
use super::kit::{Kit, START, is_invalid, is_missing};

fn in_group(name: &str) -> NewBatch {
    NewBatch { group: Some(name.to_owned()), ..batch() }
}

async fn submit(kit: &Kit, name: &str, count: u32) -> BatchId {
    let new = in_group(name);
    kit.store.submit_batch(new.clone(), rows(count)).await.unwrap();
    new.id
}

async fn group(kit: &Kit, name: &str) -> Group {
    kit.store.read_group("bank", name).await.unwrap().unwrap()
}

fn ended(all: u64, success: u64, failed: u64, aborted: u64) -> GroupCounts {
    GroupCounts { all, success, failed, aborted }
}

pub async fn a_group_is_complete_when_it_is_sealed_and_each_batch_has_ended(kit: Kit) {
    let (first, second) = (submit(&kit, "january", 2).await, submit(&kit, "january", 3).await);
    submit(&kit, "february", 1).await;
    kit.submit(1).await;
    let found = group(&kit, "january").await;
    assert_eq!((found.complete, found.created_at, found.sealed_at), (false, START, None));
    assert_eq!((found.batches, found.rows), (ended(2, 0, 0, 0), counts(5, 0, 0, 0)));
    assert_eq!(kit.batch(first).await.group.as_deref(), Some("january"));
    kit.run_rows_with(|row| if row.row_no == 3 { failure(row) } else { super::build::success(row) }).await;
    kit.finish_all().await;
    let found = group(&kit, "january").await;
    assert_eq!((found.complete, found.batches, found.rows), (false, ended(2, 1, 1, 0), counts(5, 4, 1, 0)), "it is open");
    kit.pass(SECOND);
    assert!(kit.store.seal_group("bank", "january").await.unwrap());
    let found = group(&kit, "january").await;
    assert_eq!((found.complete, found.sealed_at), (true, Some(START.after(SECOND))));
    kit.pass(SECOND);
    assert!(kit.store.seal_group("bank", "january").await.unwrap());
    assert_eq!(group(&kit, "january").await, found, "it stays as it is");
    // A batch that is retried has not ended.
    kit.store.retry_batch(second, &RetryRows::default()).await.unwrap();
    assert!(!group(&kit, "january").await.complete);
    kit.run_rows().await;
    assert!(!group(&kit, "january").await.complete);
    kit.finish_all().await;
    let found = group(&kit, "january").await;
    assert_eq!((found.complete, found.batches), (true, ended(2, 2, 0, 0)));
}

pub async fn nothing_comes_into_a_sealed_group(kit: Kit) {
    let keyed = NewBatch { request_digest: Some("digest".to_owned()), ..in_group("closed") };
    kit.store.submit_batch(keyed.clone(), rows(1)).await.unwrap();
    kit.store.seal_group("bank", "closed").await.unwrap();
    let late = in_group("closed");
    let Err(StoreError::Invalid(reason)) = kit.store.submit_batch(late.clone(), rows(1)).await else { panic!("it came in") };
    assert_eq!(reason, "the group \"closed\" of app \"bank\" is sealed: no batch comes into it any more");
    is_missing(kit.store.read_batch(late.id).await, late.id);
    // What is in it can be submitted again, and another app has groups of its own.
    kit.store.submit_batch(keyed, rows(1)).await.unwrap();
    kit.store.submit_batch(NewBatch { app: "shop".to_owned(), ..late }, rows(1)).await.unwrap();
    assert_eq!(group(&kit, "closed").await.batches.all, 1);
    for name in [String::new(), "x".repeat(256)] {
        is_invalid(kit.store.submit_batch(in_group(&name), rows(1)).await);
    }
    assert!(!kit.store.seal_group("bank", "nothing").await.unwrap());
    assert_eq!(kit.store.read_group("bank", "nothing").await.unwrap(), None);
}

pub async fn an_aborted_batch_has_ended_and_a_discarded_one_is_in_no_group(kit: Kit) {
    let gone = NewBatch { hold: true, ..in_group("g") };
    kit.store.submit_batch(gone.clone(), rows(4)).await.unwrap();
    let aborted = submit(&kit, "g", 2).await;
    kit.store.seal_group("bank", "g").await.unwrap();
    kit.abort(aborted).await;
    kit.finish_all().await;
    assert!(!group(&kit, "g").await.complete);
    kit.store.discard_batch(gone.id).await.unwrap();
    let found = group(&kit, "g").await;
    assert_eq!((found.complete, found.batches, found.rows), (true, ended(1, 0, 0, 1), counts(2, 0, 0, 2)));
    // An empty one is complete, too.
    let gone = NewBatch { group: Some("empty".to_owned()), ..held() };
    kit.store.submit_batch(gone.clone(), Vec::new()).await.unwrap();
    kit.store.seal_group("bank", "empty").await.unwrap();
    kit.store.discard_batch(gone.id).await.unwrap();
    let found = group(&kit, "empty").await;
    assert_eq!((found.complete, found.batches, found.rows), (true, GroupCounts::default(), BatchCounts::default()));
}

pub async fn groups_are_listed_by_name_in_pages(kit: Kit) {
    for name in ["b", "a", "c", "a b", "ab"] {
        submit(&kit, name, 1).await;
    }
    kit.store.submit_batch(NewBatch { app: "shop".to_owned(), ..in_group("z") }, rows(1)).await.unwrap();
    let names = |groups: Vec<Group>| groups.into_iter().map(|group| group.name).collect::<Vec<_>>();
    assert_eq!(names(kit.store.list_groups("bank", "", 10).await.unwrap()), ["a", "a b", "ab", "b", "c"]);
    assert_eq!(names(kit.store.list_groups("bank", "a b", 2).await.unwrap()), ["a b", "ab"]);
    assert_eq!(names(kit.store.list_groups("nobody", "", 10).await.unwrap()), Vec::<String>::new());
}

/// A batch is in it when it is sealed, or does not come in.
pub async fn of_a_seal_and_many_submissions_at_the_same_moment_none_comes_later(kit: Kit) {
    for round in 0..5 {
        let name = format!("group {round}");
        submit(&kit, &name, 1).await;
        let submissions: Vec<_> = (0..8)
            .map(|_| {
                let (store, new) = (kit.store.clone(), in_group(&name));
                tokio::spawn(async move { store.submit_batch(new, rows(1)).await })
            })
            .collect();
        kit.store.seal_group("bank", &name).await.unwrap();
        let sealed = group(&kit, &name).await.batches.all;
        let mut came = 1;
        for submission in submissions {
            match submission.await.unwrap() {
                Ok(()) => came += 1,
                refused => is_invalid(refused),
            }
        }
        assert_eq!((group(&kit, &name).await.batches.all, sealed), (came, came));
    }
}
