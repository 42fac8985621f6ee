//! The trial start: a processor that cannot start is refused when it is registered.

use rowmill::jobs::{BatchRequest, JobError};
use rowmill::model::{App, BatchStatus, Grants, Limits};
use rowmill::sandbox::LoadError;

use super::{Site, on_each_store, row};
use crate::support::guests;
use crate::support::wat::{RETURNED, Wat};

on_each_store! {
    a_processor_that_cannot_start_is_not_registered
    a_processor_whose_begin_returns_a_failure_is_registered
    the_trial_start_has_the_limits_of_the_app
    a_processor_that_needs_a_grant_is_registered_though_its_trial_fails
    trials_at_the_same_time_all_find_room
}

const ENDLESS: &str = "(loop $again (br $again))";

/// Why it was refused.
async fn refused(site: &Site, op: &str, wasm: Vec<u8>) -> String {
    let refused = site.jobs.deploy("bank", op, wasm, None).await.unwrap_err();
    let JobError::Unusable(LoadError::CannotStart { reason }) = refused else { panic!("{refused:?}") };
    let listed = site.jobs.list_versions("bank", Some(op)).await.unwrap();
    assert!(listed.is_empty(), "{listed:?}");
    reason
}

async fn a_processor_that_cannot_start_is_not_registered(mut site: Site) {
    assert_eq!(refused(&site, "error", guests::read("misbehaving-init")).await, "init: the configuration is wrong on purpose");
    assert!(refused(&site, "panic", guests::read("misbehaving-init")).await.contains("init panics on purpose"));
    assert!(refused(&site, "init", Wat::slow_query().body("init", "(unreachable)").module()).await.starts_with("init: was stopped by a trap"));
    assert!(refused(&site, "begin", Wat::batch().body("begin", "(unreachable)").module()).await.starts_with("begin: was stopped by a trap"));
    let start = Wat::batch().fields("(func $start unreachable) (start $start)");
    assert!(refused(&site, "start", start.module()).await.starts_with("the instance: was stopped by a trap"));

    // The same one, since its author says so; its rows tell why they failed.
    let jobs = site.jobs.clone().without_trial_start();
    jobs.register_processor("bank", "error", guests::read("misbehaving-init")).await.unwrap();
    site.begin_work();
    let id = site.jobs.batch_submit(BatchRequest::new("bank", "error").with_rows(vec![row(1, "{}")])).await.unwrap();
    let batch = site.wait(id).await;
    assert_eq!((batch.status, batch.counts.failed), (BatchStatus::Failed, 1));
}

async fn a_processor_whose_begin_returns_a_failure_is_registered(site: Site) {
    // An error with the case `permanent` and an empty text.
    let needs_context = Wat::batch().body("begin", &format!("(i32.store8 (i32.const {RETURNED}) (i32.const 1))"));
    site.jobs.register_processor("bank", "context", needs_context.module()).await.unwrap();
}

async fn the_trial_start_has_the_limits_of_the_app(site: Site) {
    let limits = Limits { fuel: 1_000_000, ..Limits::default() };
    site.jobs.register_app(&App { limits: Some(limits), ..App::named("bank") }).await.unwrap();
    let endless = refused(&site, "loop", Wat::batch().body("init", ENDLESS).module()).await;
    assert!(endless.starts_with("init: ran out of fuel: used 10000000, the limit is 10000000"), "{endless}");
    let limits = Limits { memory_bytes: 1 << 20, ..Limits::default() };
    site.jobs.register_app(&App { limits: Some(limits), ..App::named("bank") }).await.unwrap();
    let large = refused(&site, "large", Wat::batch().pages(17).module()).await;
    assert!(large.contains("memory"), "{large}");
}

async fn a_processor_that_needs_a_grant_is_registered_though_its_trial_fails(site: Site) {
    let grants = Grants { values: [("url".to_owned(), "https://example.com".to_owned())].into(), ..Grants::default() };
    site.jobs.register_app(&App::named("bank")).await.unwrap();
    site.jobs.set_grants("bank", &Grants::default(), &grants).await.unwrap();
    let guest = Wat::batch()
        .world("import wasi:config/store@0.2.0-rc.1;")
        .package("package wasi:config@0.2.0-rc.1; interface store { variant error { upstream(string), io(string) } get-all: func() -> result<list<tuple<string, string>>, error>; }")
        .import("wasi:config/store@0.2.0-rc.1", "get-all", "get-all", "(param i32)")
        .body("init", "(call $get-all (i32.const 2048)) (if (i32.load8_u (i32.const 2048)) (then (unreachable)))");
    site.jobs.register_processor("bank", "configured", guest.module()).await.unwrap();
}

async fn trials_at_the_same_time_all_find_room(site: Site) {
    let deploys = (0..20).map(|number| {
        let jobs = site.jobs.clone();
        let guest = Wat::batch().fields(&format!("(data (i32.const 2000) \"{number}\")"));
        async move { jobs.deploy("bank", &format!("op-{number}"), guest.module(), None).await }
    });
    for deployed in futures_util::future::join_all(deploys).await {
        deployed.unwrap();
    }
}
