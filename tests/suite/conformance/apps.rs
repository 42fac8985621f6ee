//! Apps: whose turn it is, how much of an app runs at once, and what is registered.

use std::collections::BTreeMap;
use std::time::Duration;

use rowmill::model::{
    App, AppQuota, BatchId, ClaimRequest, Grants, KeyValueGrant, Limits, NewBatch, ObjectsGrant, Policy, ProcessorKind, RunningLeases, Terms,
    WorkerInfo,
};

use super::build::{TTL, batch, query, request, row, rows, success};
use super::kit::{Kit, is_invalid};

async fn submit_to(kit: &Kit, app: &str, count: u32, priority: i32) -> BatchId {
    let new = NewBatch { app: app.to_owned(), terms: Terms { priority, ..Terms::default() }, ..batch() };
    let id = new.id;
    kit.store.submit_batch(new, rows(count)).await.unwrap();
    id
}

async fn app_of(kit: &Kit, lease: &rowmill::model::Lease) -> String {
    kit.batch(lease.batch).await.app
}

fn one_row() -> ClaimRequest {
    ClaimRequest { rows_max: 1, ..request() }
}

pub async fn an_app_comes_back_as_it_was_registered(kit: Kit) {
    assert_eq!(kit.store.read_app("a").await.unwrap(), None);
    let limits = Limits { fuel: 7, timeout: Duration::from_millis(1_500), ..Limits::default() };
    let quota = AppQuota { queued_rows: Some(5), batch_time: Some(Duration::from_millis(7)), ..AppQuota::default() };
    let app = App { weight: 3, running_max: Some(2), limits: Some(limits), quota, ..App::named("a") };
    kit.store.put_app(&App::named("b")).await.unwrap();
    kit.store.put_app(&App::named("a")).await.unwrap();
    kit.store.put_app(&app).await.unwrap();
    assert_eq!(kit.store.read_app("a").await.unwrap(), Some(app.clone()));
    assert_eq!(kit.store.list_apps().await.unwrap(), [app, App::named("b")]);
    for wrong in [App { weight: 0, ..App::named("a") }, App { weight: 1_001, ..App::named("a") }, App { running_max: Some(0), ..App::named("a") }] {
        is_invalid(kit.store.put_app(&wrong).await);
    }
    is_invalid(kit.store.put_app(&App::named("n".repeat(256))).await);
}

/// Each name in a list of apps, operations or groups can be told from all others.
pub async fn names_that_cannot_be_told_apart_are_refused(kit: Kit) {
    for name in ["", "bank ", " bank", "\u{2003}bank", "the\u{a0}bank", "ba\u{200b}nk", "ba\nnk", "gro\u{308}ße", "n\0"] {
        is_invalid(kit.store.put_app(&App::named(name)).await);
        is_invalid(kit.store.set_grants(name, &Grants::default(), &Grants { objects: Some(ObjectsGrant::default()), ..Grants::default() }).await);
        is_invalid(kit.store.put_policy(&Policy { paused: true, ..Policy::of(name, None) }).await);
        is_invalid(kit.store.set_paused(name, None, true).await);
        is_invalid(kit.store.submit_batch(NewBatch { app: name.to_owned(), ..batch() }, rows(1)).await);
        is_invalid(kit.store.submit_batch(NewBatch { group: Some(name.to_owned()), ..batch() }, rows(1)).await);
    }
    for op in ["", "post ", "po\u{200b}st"] {
        is_invalid(kit.store.submit_batch(NewBatch { op: op.to_owned(), ..batch() }, rows(1)).await);
        is_invalid(kit.store.put_policy(&Policy { paused: true, ..Policy::of("bank", Some(op)) }).await);
    }
    assert!(kit.store.list_apps().await.unwrap().is_empty() && kit.store.list_policies().await.unwrap().is_empty());
}

/// However it is written: in capitals of any script, composed or not.
pub async fn an_operation_is_the_same_in_any_case_of_any_script(kit: Kit) {
    for (written, stored) in [("POST", "post"), ("PR\u{dc}FEN", "prüfen"), ("PRU\u{308}FEN", "prüfen"), ("ПЛАТЕЖ", "платеж")] {
        let new = NewBatch { op: written.to_owned(), ..batch() };
        let id = new.id;
        kit.store.submit_batch(new, rows(1)).await.unwrap();
        assert_eq!(kit.batch(id).await.op, stored);
        kit.store.set_paused("bank", Some(written), true).await.unwrap();
        assert!(kit.store.list_policies().await.unwrap().iter().any(|policy| policy.op.as_deref() == Some(stored) && policy.paused));
        kit.store.set_paused("bank", Some(stored), false).await.unwrap();
        assert!(kit.store.list_policies().await.unwrap().iter().all(|policy| !policy.paused), "{written}");
    }
}

pub async fn grants_change_from_what_they_were_and_come_with_work(kit: Kit) {
    let some = Grants { values: BTreeMap::from([("greeting".to_owned(), "grüß \u{0} \u{1a} \"dich\"".to_owned())]), ..Grants::default() };
    let more = Grants { key_value: Some(KeyValueGrant::default()), ..some.clone() };
    let granted = async || kit.store.read_app("a").await.unwrap().unwrap().grants;
    // An app that was never registered.
    assert!(kit.store.set_grants("a", &Grants::default(), &some).await.unwrap());
    assert_eq!(kit.store.read_app("a").await.unwrap(), Some(App { grants: some.clone(), ..App::named("a") }));
    assert!(!kit.store.set_grants("a", &Grants::default(), &more).await.unwrap());
    assert!(!kit.store.set_grants("a", &more, &Grants::default()).await.unwrap());
    assert_eq!(granted().await, some);
    assert!(kit.store.set_grants("a", &some, &more).await.unwrap());
    // Who registers an app neither gives nor takes.
    kit.store.put_app(&App { weight: 2, ..App::named("a") }).await.unwrap();
    assert_eq!(granted().await, more);
    assert_eq!(kit.store.list_apps().await.unwrap(), [App { weight: 2, grants: more.clone(), ..App::named("a") }]);
    submit_to(&kit, "a", 1, 0).await;
    let work = kit.store.claim_work(&request()).await.unwrap().remove(0);
    if let Some((_, app)) = work.batch {
        assert_eq!(app.unwrap().grants, more);
    }
    assert!(kit.store.set_grants("a", &more, &Grants::default()).await.unwrap());
    assert_eq!(granted().await, Grants::default());
    let wrong = Grants { values: BTreeMap::from([("../x".to_owned(), String::new())]), ..Grants::default() };
    is_invalid(kit.store.set_grants("a", &Grants::default(), &wrong).await);
    is_invalid(kit.store.set_grants(&"n".repeat(256), &Grants::default(), &some).await);
}

pub async fn an_app_at_its_limit_gets_no_lease(kit: Kit) {
    kit.store.put_app(&App { running_max: Some(3), ..App::named("a") }).await.unwrap();
    submit_to(&kit, "a", 10, 0).await;
    let claimed = kit.claim(&ClaimRequest { leases_max: 9, ..one_row() }).await;
    assert_eq!(claimed.len(), 3);
    kit.claim_nothing().await;
    // Another app is not held up by it.
    submit_to(&kit, "b", 1, 0).await;
    let other = kit.claim(&one_row()).await;
    assert_eq!(app_of(&kit, &other[0]).await, "b");
    kit.record_each(&claimed[0], success).await;
    assert_eq!(kit.claim(&ClaimRequest { leases_max: 9, ..one_row() }).await.len(), 1);
    // Leases that ended run no longer, and count when they are taken over.
    kit.go_silent();
    assert_eq!(kit.claim(&ClaimRequest { leases_max: 9, ..one_row() }).await.len(), 3 + 1);
}

pub async fn what_an_app_at_its_limit_cannot_take_is_not_due(kit: Kit) {
    kit.store.put_app(&App { running_max: Some(1), ..App::named("a") }).await.unwrap();
    submit_to(&kit, "a", 3, 0).await;
    let first = kit.claim(&one_row()).await[0];
    kit.store.give_back_lease(first.key).await.unwrap();
    assert_eq!(kit.store.next_due(None).await.unwrap(), Some(Duration::ZERO));
    kit.claim(&one_row()).await;
    assert_eq!(kit.store.next_due(None).await.unwrap(), Some(TTL));
}

pub async fn batches_of_a_higher_priority_come_first(kit: Kit) {
    let (low, high, oldest_high) = (submit_to(&kit, "a", 1, -5).await, submit_to(&kit, "a", 1, 7).await, submit_to(&kit, "a", 1, 7).await);
    let middle = submit_to(&kit, "a", 1, 0).await;
    assert_eq!(kit.batch(high).await.terms.priority, 7);
    let mut order = Vec::new();
    while let [lease] = kit.claim(&one_row()).await[..] {
        order.push(lease.batch);
    }
    assert_eq!(order, [high, oldest_high, middle, low]);
}

/// How many of so many leases of equal work go to each app.
async fn shares(kit: &Kit, leases: u32) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    for _ in 0..leases {
        let [lease] = kit.claim(&one_row()).await[..] else { panic!("there is no more work") };
        *shares.entry(app_of(kit, &lease).await).or_insert(0) += 1;
        let results: Vec<_> = kit.read(&lease).await.iter().map(success).collect();
        kit.store.record_results(lease.key, &results, Duration::from_secs(1)).await.unwrap();
    }
    shares
}

pub async fn work_is_shared_by_weight(kit: Kit) {
    kit.store.put_app(&App { weight: 3, ..App::named("heavy") }).await.unwrap();
    submit_to(&kit, "heavy", 1_000, 0).await;
    submit_to(&kit, "light", 1_000, 0).await;
    let shares = shares(&kit, 80).await;
    assert!((56..=64).contains(&shares["heavy"]), "{shares:?}");
}

/// It was idle while another app had much work: its few rows go first.
pub async fn an_app_that_was_idle_does_not_wait_for_another(kit: Kit) {
    submit_to(&kit, "busy", 1_000, 0).await;
    shares(&kit, 40).await;
    submit_to(&kit, "idle", 5, 0).await;
    assert_eq!(shares(&kit, 5).await, BTreeMap::from([("idle".to_owned(), 5)]));
}

/// But not for ever: what it was not given while it had no work is not owed to it.
pub async fn an_app_that_was_idle_saves_up_little(kit: Kit) {
    submit_to(&kit, "busy", 1_000, 0).await;
    shares(&kit, 100).await;
    submit_to(&kit, "idle", 1_000, 0).await;
    let shares = shares(&kit, 60).await;
    assert!((30..=42).contains(&shares["idle"]), "{shares:?}");
}

pub async fn slow_queries_and_batches_are_claimed_apart(kit: Kit) {
    let (new, of_batch) = (query(), kit.submit(1).await);
    kit.store.submit_batch(new.clone(), vec![row(0)]).await.unwrap();
    for (kind, wanted) in [(ProcessorKind::SlowQuery, new.id), (ProcessorKind::Batch, of_batch)] {
        let request = ClaimRequest { kind: Some(kind), leases_max: 5, ..request() };
        let [lease] = kit.claim(&request).await[..] else { panic!("one lease of this kind") };
        assert_eq!(lease.batch, wanted);
        assert_eq!(kit.store.next_due(Some(kind)).await.unwrap(), Some(TTL));
        kit.record_each(&lease, success).await;
        assert_eq!(kit.store.next_due(Some(kind)).await.unwrap(), Some(Duration::ZERO));
        let finish = kit.store.claim_finish("finisher", Some(kind), TTL).await.unwrap().unwrap();
        assert_eq!(finish.batch, wanted);
        assert_eq!(kit.store.claim_finish("finisher", Some(kind), TTL).await.unwrap(), None);
    }
}

pub async fn workers_are_seen_with_what_they_run(kit: Kit) {
    let info = |name: &str| WorkerInfo { name: name.to_owned(), host: "host".to_owned(), pid: 7, slots: 4, query_slots: 2, draining: false };
    kit.store.beat_worker(&info("worker")).await.unwrap();
    kit.pass(Duration::from_secs(3));
    kit.store.beat_worker(&WorkerInfo { draining: true, ..info("worker") }).await.unwrap();
    kit.store.beat_worker(&info("idle")).await.unwrap();
    let id = submit_to(&kit, "a", 10, 0).await;
    let op = kit.batch(id).await.op;
    kit.claim(&ClaimRequest { rows_max: 3, leases_max: 2, ..request() }).await;
    let seen = kit.store.list_workers().await.unwrap();
    assert_eq!(seen.iter().map(|worker| worker.info.name.as_str()).collect::<Vec<_>>(), ["idle", "worker"]);
    let worker = &seen[1];
    assert_eq!(worker.info, WorkerInfo { draining: true, ..info("worker") });
    assert_eq!(worker.seen_at.since(worker.started_at), Duration::from_secs(3));
    assert_eq!(worker.runs, [RunningLeases { app: "a".to_owned(), op, leases: 2, rows: 6 }]);
    kit.store.remove_worker("worker").await.unwrap();
    // Whoever was not seen for a day is forgotten.
    kit.pass(Duration::from_secs(24 * 60 * 60 + 1));
    kit.store.beat_worker(&info("new")).await.unwrap();
    let names: Vec<String> = kit.store.list_workers().await.unwrap().into_iter().map(|worker| worker.info.name).collect();
    assert_eq!(names, ["new"]);
}

/// A worker may have no room for an app at the moment.
pub async fn an_app_that_a_worker_leaves_out_gets_no_lease(kit: Kit) {
    submit_to(&kit, "a", 2, 9).await;
    submit_to(&kit, "b", 1, 0).await;
    let without = |apps: &[&str]| ClaimRequest { apps_except: apps.iter().map(|app| (*app).to_owned()).collect(), leases_max: 9, ..one_row() };
    assert_eq!(kit.claim(&without(&["a", "b", "c"])).await, []);
    let [lease] = kit.claim(&without(&["a"])).await[..] else { panic!() };
    assert_eq!(app_of(&kit, &lease).await, "b");
    // Nor what was given back.
    kit.store.give_back_lease(lease.key).await.unwrap();
    for lease in kit.claim(&without(&["b"])).await {
        assert_eq!(app_of(&kit, &lease).await, "a");
    }
    assert_eq!(kit.claim(&without(&[])).await.len(), 1);
}

pub async fn an_app_changes_from_what_it_was(kit: Kit) {
    let (named, weighed) = (App::named("bank"), App { weight: 7, ..App::named("bank") });
    let quota = AppQuota { batch_rows: Some(100), ..AppQuota::default() };
    assert!(kit.store.change_app(&named, &weighed).await.unwrap());
    assert!(!kit.store.change_app(&named, &App { quota, ..named.clone() }).await.unwrap(), "it has another weight by now");
    assert_eq!(kit.store.read_app("bank").await.unwrap(), Some(weighed.clone()));
    // Grants are changed on their own.
    let grants = Grants { key_value: Some(KeyValueGrant::default()), ..Grants::default() };
    assert!(kit.store.set_grants("bank", &Grants::default(), &grants).await.unwrap());
    assert!(kit.store.change_app(&weighed, &App { quota, ..weighed.clone() }).await.unwrap());
    assert_eq!(kit.store.read_app("bank").await.unwrap(), Some(App { quota, grants, ..weighed.clone() }));
    is_invalid(kit.store.change_app(&weighed, &App { weight: 0, ..weighed.clone() }).await);
}
