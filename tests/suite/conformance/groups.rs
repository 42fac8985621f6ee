//! Groups of batches.

use std::sync::Arc;
use std::time::Duration;

use rowmill::model::{BatchCounts, BatchId, Clock, Due, Group, GroupCounts, GroupState, NewBatch, OpKey, RetryRows};
use rowmill::store::StoreError;
use tokio::sync::Barrier;

use super::build::{SECOND, batch, counts, failure, held, query, rows, success};
use super::kit::{Kit, START, is_invalid, is_missing};

const HOUR: Duration = Duration::from_secs(3_600);

fn in_group(name: &str) -> NewBatch {
    NewBatch { group: Some(name.to_owned()), ..batch() }
}

async fn submit(kit: &Kit, name: &str, count: u32) -> BatchId {
    let new = in_group(name);
    kit.store.submit_batch(new.clone(), rows(count)).await.unwrap();
    new.id
}

async fn run_all(kit: &Kit) {
    kit.run_rows().await;
    kit.finish_all().await;
}

async fn group(kit: &Kit, name: &str) -> Group {
    kit.store.read_group("bank", name).await.unwrap().unwrap()
}

async fn seal(kit: &Kit, name: &str) {
    assert!(kit.store.seal_group("bank", name).await.unwrap());
}

fn batches(all: u64, open: u64, success: u64, failed: u64, aborted: u64) -> GroupCounts {
    GroupCounts { all, open, success, failed, aborted }
}

pub async fn a_group_ends_when_it_is_sealed_and_each_batch_is_done(kit: Kit) {
    let (first, _) = (submit(&kit, "january", 2).await, submit(&kit, "january", 3).await);
    submit(&kit, "february", 1).await;
    kit.submit(1).await;
    let found = group(&kit, "january").await;
    assert_eq!((found.state(), found.created_at, found.sealed_at), (GroupState::Open, START, None));
    assert_eq!((found.batches, found.rows), (batches(2, 2, 0, 0, 0), counts(5, 0, 0, 0)));
    assert_eq!(kit.batch(first).await.group.as_deref(), Some("january"));
    kit.run_rows_with(|row| if row.row_no == 3 { failure(row) } else { success(row) }).await;
    kit.pass(SECOND);
    kit.finish_all().await;
    let found = group(&kit, "january").await;
    assert_eq!((found.state(), found.batches, found.rows), (GroupState::Open, batches(2, 0, 1, 1, 0), counts(5, 4, 1, 0)), "more may come");
    kit.pass(SECOND);
    seal(&kit, "january").await;
    let found = group(&kit, "january").await;
    let now = Some(START.after(SECOND * 2));
    assert_eq!((found.state(), found.sealed_at, found.ended_at), (GroupState::Ended, now, now));
    kit.pass(SECOND);
    seal(&kit, "january").await;
    assert_eq!(group(&kit, "january").await, found, "it stays as it is");
    assert_eq!(group(&kit, "february").await.state(), GroupState::Open);
}

pub async fn a_sealed_group_ends_with_the_last_of_its_batches(kit: Kit) {
    submit(&kit, "g", 1).await;
    let last = NewBatch { hold: true, ..in_group("g") };
    kit.store.submit_batch(last.clone(), rows(1)).await.unwrap();
    seal(&kit, "g").await;
    run_all(&kit).await;
    assert_eq!((group(&kit, "g").await.state(), group(&kit, "g").await.batches.open), (GroupState::Sealed, 1));
    // A batch that was in it takes rows all the same.
    kit.store.append_rows(last.id, super::build::rows_with_lines(&[2])).await.unwrap();
    kit.store.release_batch(last.id).await.unwrap();
    kit.run_rows().await;
    kit.pass(SECOND);
    let join = kit.claim_finish().await;
    kit.store.record_files(&join, &[]).await.unwrap();
    assert_eq!(group(&kit, "g").await.ended_at, None, "its processor was not told");
    kit.pass(SECOND);
    kit.finish_all().await;
    let found = group(&kit, "g").await;
    assert_eq!((found.ended_at, found.batches), (Some(START.after(SECOND)), batches(2, 0, 2, 0, 0)), "from when the last one was final");
}

pub async fn what_is_retried_in_a_group_that_has_ended_does_not_take_that_back(kit: Kit) {
    let id = submit(&kit, "g", 2).await;
    kit.run_rows_with(failure).await;
    kit.finish_all().await;
    // Before the seal a retry is one more batch to wait for.
    kit.store.retry_batch(id, &RetryRows::default()).await.unwrap();
    seal(&kit, "g").await;
    assert_eq!(group(&kit, "g").await.state(), GroupState::Sealed);
    kit.run_rows_with(failure).await;
    kit.finish_all().await;
    let ended = group(&kit, "g").await;
    assert_eq!((ended.state(), ended.batches), (GroupState::Ended, batches(1, 0, 0, 1, 0)));
    kit.pass(HOUR);
    kit.store.retry_batch(id, &RetryRows::default()).await.unwrap();
    let found = group(&kit, "g").await;
    assert_eq!((found.ended_at, found.batches, found.rows), (ended.ended_at, batches(1, 1, 0, 0, 0), counts(2, 0, 0, 0)));
    run_all(&kit).await;
    let found = group(&kit, "g").await;
    assert_eq!((found.ended_at, found.batches, found.rows), (ended.ended_at, batches(1, 0, 1, 0, 0), counts(2, 2, 0, 0)), "it ended once");
}

pub async fn nothing_comes_into_a_sealed_group(kit: Kit) {
    let keyed = NewBatch { request_digest: Some("digest".to_owned()), ..in_group("closed") };
    kit.store.submit_batch(keyed.clone(), rows(1)).await.unwrap();
    seal(&kit, "closed").await;
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
    is_invalid(kit.store.submit_batch(NewBatch { group: Some("closed".to_owned()), ..query() }, super::build::rows_with_lines(&[0])).await);
    assert!(!kit.store.seal_group("bank", "nothing").await.unwrap());
    assert_eq!(kit.store.read_group("bank", "nothing").await.unwrap(), None);
    // A group whose first batch could not come in is not there.
    is_invalid(kit.store.submit_batch(in_group("bad"), super::build::rows_with_lines(&[2, 1, 2])).await);
    assert_eq!(kit.store.read_group("bank", "bad").await.unwrap(), None);
}

pub async fn an_aborted_batch_is_done_and_a_discarded_one_is_in_no_group(kit: Kit) {
    let gone = NewBatch { hold: true, ..in_group("g") };
    kit.store.submit_batch(gone.clone(), rows(4)).await.unwrap();
    let aborted = submit(&kit, "g", 2).await;
    seal(&kit, "g").await;
    kit.abort(aborted).await;
    kit.finish_all().await;
    assert_eq!(group(&kit, "g").await.state(), GroupState::Sealed);
    kit.store.discard_batch(gone.id).await.unwrap();
    let found = group(&kit, "g").await;
    assert_eq!((found.state(), found.batches, found.rows), (GroupState::Ended, batches(1, 0, 0, 0, 1), counts(2, 0, 0, 2)));
    // One that is empty ends, too.
    let gone = NewBatch { group: Some("empty".to_owned()), ..held() };
    kit.store.submit_batch(gone.clone(), Vec::new()).await.unwrap();
    kit.store.discard_batch(gone.id).await.unwrap();
    assert_eq!(group(&kit, "empty").await.state(), GroupState::Open);
    seal(&kit, "empty").await;
    let found = group(&kit, "empty").await;
    assert_eq!((found.state(), found.batches, found.rows), (GroupState::Ended, GroupCounts::default(), BatchCounts::default()));
}

pub async fn groups_are_listed_by_name_in_pages(kit: Kit) {
    for name in ["b", "a", "c", "a b", "ab", "odd ' \\ ü"] {
        submit(&kit, name, 1).await;
    }
    kit.store.submit_batch(NewBatch { app: "shop".to_owned(), ..in_group("z") }, rows(1)).await.unwrap();
    let names = |groups: Vec<Group>| groups.into_iter().map(|group| group.name).collect::<Vec<_>>();
    assert_eq!(names(kit.store.list_groups("bank", "", 10).await.unwrap()), ["a", "a b", "ab", "b", "c", "odd ' \\ ü"]);
    assert_eq!(names(kit.store.list_groups("bank", "a b", 2).await.unwrap()), ["a b", "ab"]);
    assert_eq!(names(kit.store.list_groups("nobody", "", 10).await.unwrap()), Vec::<String>::new());
    assert_eq!(group(&kit, "odd ' \\ ü").await.batches.all, 1);
}

pub async fn a_batch_is_kept_until_its_group_has_ended_and_from_then_on(kit: Kit) {
    let (early, late) = (submit(&kit, "g", 1).await, NewBatch { hold: true, ..in_group("g") });
    kit.store.submit_batch(late.clone(), rows(1)).await.unwrap();
    let alone = kit.submit(1).await;
    run_all(&kit).await;
    kit.pass(HOUR * 10);
    let op = OpKey { app: "bank".to_owned(), op: "post".to_owned() };
    let due = |kit: &Kit| {
        let at = Some(rowmill::model::Timestamp(kit.clock.now().0 - 3_600_000));
        Due { batches: at, outcomes: at, ..Due::default() }
    };
    let take = async |kit: &Kit| {
        let mut taken = Vec::new();
        while let Some(begun) = kit.store.begin_prune(&op, &due(kit), HOUR).await.unwrap() {
            assert!(begun.whole);
            while kit.store.prune_rows(begun.batch, 10, HOUR).await.unwrap().left {}
            taken.push(begun.batch);
        }
        taken
    };
    assert_eq!(kit.store.count_due(&op, &due(&kit)).await.unwrap().batches, 1);
    assert_eq!(take(&kit).await, [alone], "the group is open");
    seal(&kit, "g").await;
    assert_eq!(take(&kit).await, [], "it is sealed");
    kit.store.release_batch(late.id).await.unwrap();
    run_all(&kit).await;
    assert_eq!(group(&kit, "g").await.state(), GroupState::Ended);
    assert_eq!((kit.store.count_due(&op, &due(&kit)).await.unwrap().batches, take(&kit).await), (0, Vec::new()), "the time begins with its end");
    kit.pass(HOUR * 2);
    assert_eq!(kit.store.count_due(&op, &due(&kit)).await.unwrap().batches, 2);
    let mut gone = take(&kit).await;
    gone.sort_by_key(|id| *id != early);
    assert_eq!(gone, [early, late.id]);
    assert_eq!(kit.store.read_group("bank", "g").await.unwrap(), None, "it goes with the last of its batches");
    // The name is free.
    submit(&kit, "g", 1).await;
    assert_eq!(group(&kit, "g").await.batches.all, 1);
}

pub async fn a_batch_of_a_group_that_is_removed_by_hand_is_in_it_no_longer(kit: Kit) {
    let (first, _) = (submit(&kit, "g", 1).await, submit(&kit, "g", 1).await);
    run_all(&kit).await;
    kit.store.begin_removal(first, HOUR).await.unwrap();
    while kit.store.prune_rows(first, 10, HOUR).await.unwrap().left {}
    assert_eq!((group(&kit, "g").await.state(), group(&kit, "g").await.batches), (GroupState::Open, batches(1, 0, 1, 0, 0)));
    seal(&kit, "g").await;
    assert_eq!(group(&kit, "g").await.state(), GroupState::Ended);
}

/// A batch is in it when it is sealed, or does not come in.
pub async fn of_a_seal_and_many_submissions_at_the_same_moment_none_comes_later(kit: Kit) {
    for round in 0..5 {
        let name = format!("group {round}");
        submit(&kit, &name, 1).await;
        let barrier = Arc::new(Barrier::new(9));
        let submissions: Vec<_> = (0..8)
            .map(|_| {
                let (store, new, barrier) = (kit.store.clone(), in_group(&name), Arc::clone(&barrier));
                tokio::spawn(async move {
                    barrier.wait().await;
                    store.submit_batch(new, rows(1)).await
                })
            })
            .collect();
        barrier.wait().await;
        seal(&kit, &name).await;
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

/// Whoever is last ends it, and it ends.
pub async fn of_a_seal_and_the_last_ends_at_the_same_moment_one_ends_the_group(kit: Kit) {
    for round in 0..5 {
        let name = format!("group {round}");
        for _ in 0..3 {
            submit(&kit, &name, 1).await;
        }
        kit.run_rows().await;
        let mut marks = Vec::new();
        while let Some(lease) = kit.try_claim_finish().await {
            match lease.step {
                rowmill::model::BatchStep::Join => kit.store.record_files(&lease, &[]).await.unwrap(),
                _ => marks.push(lease),
            }
        }
        assert_eq!(marks.len(), 3);
        let barrier = Arc::new(Barrier::new(4));
        let mut ending = tokio::task::JoinSet::new();
        for mark in marks {
            let (store, barrier) = (kit.store.clone(), Arc::clone(&barrier));
            ending.spawn(async move {
                barrier.wait().await;
                store.record_mark_done(&mark, None).await.unwrap();
            });
        }
        barrier.wait().await;
        seal(&kit, &name).await;
        ending.join_all().await;
        let found = group(&kit, &name).await;
        assert_eq!((found.state(), found.batches), (GroupState::Ended, batches(3, 0, 3, 0, 0)));
    }
}
