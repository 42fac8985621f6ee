//! Grants of apps: given by operators, asked for by imports, looked at when code is registered and when rows are run.

use rowmill::grants::GrantSettings;
use rowmill::jobs::JobError;
use rowmill::model::{BatchId, BatchStatus, Grants, HttpGrant, Isolation, KeyValueGrant, ObjectsGrant, Policy, SqlGrant};
use rowmill::worker::WorkerSettings;
use rowmill_tests::reaching;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::sql::Bank;
use crate::jobs::{Site, on_each_store, row, settings};
use crate::service::Installation;
use crate::support::guests;

on_each_store! {
    code_is_registered_where_all_that_it_imports_is_granted
    what_is_taken_back_is_not_there_for_the_next_batch
    what_is_changed_reaches_the_next_lease_of_a_batch_that_runs
    databases_and_objects_are_there_for_workers
    an_app_cannot_grant_itself_anything
    grants_that_others_changed_are_not_overwritten
}

fn everything() -> Grants {
    let mut grants = Grants { key_value: Some(KeyValueGrant::default()), objects: Some(ObjectsGrant::default()), ..Grants::default() };
    grants.sql.insert("bank".to_owned(), SqlGrant::default());
    grants.values.insert("branch".to_owned(), "3".to_owned());
    grants.http = Some(HttpGrant { allow: ["https://api.example.com".parse().unwrap()].into(), ..HttpGrant::default() });
    grants
}

async fn grant(site: &Site, app: &str, to: &Grants) {
    let from = site.store.read_app(app).await.unwrap().map(|app| app.grants).unwrap_or_default();
    assert!(site.jobs.set_grants(app, &from, to).await.unwrap());
}

async fn code_is_registered_where_all_that_it_imports_is_granted(site: Site) {
    let refused = async |app: &str| match site.jobs.register_processor(app, "reach", guests::read("reaching")).await {
        Err(JobError::Unusable(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let reason = refused("shop").await;
    assert!(reason.starts_with("this component imports what app \"shop\" was not granted: "), "{reason}");
    for part in [
        "wasi:config/store@0.2.0-rc.1 (an operator grants it: rowmill apps grant shop --value KEY=VALUE or --secret KEY=NAME)",
        "wasi:http/types@0.2.12",
        "(an operator grants it: rowmill apps grant shop --http https://HOST)",
        "wasi:keyvalue/store@0.2.0-draft",
        "(an operator grants it: rowmill apps grant shop --key-value)",
        "rowmill:sql/query@0.1.0 (an operator grants it: rowmill apps grant shop --sql NAME)",
        "rowmill:objects/store@0.1.0 (an operator grants it: rowmill apps grant shop --objects)",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(site.store.list_processors(Some("shop")).await.unwrap().is_empty());
    let reason = {
        grant(&site, "shop", &Grants { key_value: None, ..everything() }).await;
        refused("shop").await
    };
    assert!(reason.contains("wasi:keyvalue") && !reason.contains("wasi:config") && !reason.contains("wasi:http"), "{reason}");
    grant(&site, "shop", &everything()).await;
    assert_eq!(site.jobs.register_processor("shop", "reach", guests::read("reaching")).await.unwrap().version, 1);
    // What one app may, another may not, though the code is known.
    refused("bank").await;
}

/// Names what it would be asked for: nobody asks.
fn databases() -> GrantSettings {
    GrantSettings { databases_directory: Some(reaching::databases_directory().to_owned()), ..GrantSettings::default() }
}

async fn what_is_taken_back_is_not_there_for_the_next_batch(site: Site) {
    let mut site = site.working_by(WorkerSettings { grants: databases(), ..settings("one") });
    grant(&site, "bank", &everything()).await;
    site.jobs.register_processor("bank", "reach", guests::read("reaching")).await.unwrap();
    site.begin_work();
    let steps = json!([{"do": "config", "key": "branch"}, {"do": "increment", "key": "n", "delta": 1}]).to_string();
    let id = site.submit("reach", vec![row(1, &steps), row(2, &steps)]).await;
    assert_eq!(site.wait(id).await.status, BatchStatus::Success);
    let mut seen: Vec<Value> = site
        .store
        .read_results(id, None, 10)
        .await
        .unwrap()
        .into_iter()
        .map(|row| serde_json::from_str(row.output.as_ref().unwrap()).unwrap())
        .collect();
    seen.sort_by_key(ToString::to_string);
    assert_eq!(seen, [json!(["3", 1]), json!(["3", 2])]);
    grant(&site, "bank", &Grants { http: None, ..everything() }).await;
    let id = site.submit("reach", vec![row(1, &steps)]).await;
    assert_eq!(site.wait(id).await.status, BatchStatus::Failed);
    let result = site.store.read_results(id, None, 10).await.unwrap().remove(0);
    let told = format!("{result:?}");
    assert!(told.contains("was not granted: wasi:http/"), "{told}");
    site.end_work().await;
}

/// Whatever the isolation: an instance that waits for further rows is made anew.
async fn what_is_changed_reaches_the_next_lease_of_a_batch_that_runs(mut site: Site) {
    let gate = Gate::open().await;
    let mut before = everything();
    before.http = Some(HttpGrant { allow: [format!("http://127.0.0.1:{}", gate.port).parse().unwrap()].into(), ..HttpGrant::default() });
    grant(&site, "bank", &before).await;
    site.jobs.register_processor("bank", "reach", guests::read("reaching")).await.unwrap();
    for isolation in [Isolation::Lease, Isolation::Warm] {
        // One that does not know the isolation of before.
        site = site.working_by(WorkerSettings { slots: 1, lease_rows_max: 1, grants: databases(), ..settings("one") });
        site.store.put_policy(&Policy { isolation: Some(isolation), ..Policy::of("bank", Some("reach")) }).await.unwrap();
        grant(&site, "bank", &before).await;
        site.begin_work();
        let first = json!([{"do": "http", "url": format!("http://127.0.0.1:{}/", gate.port)}, {"do": "config", "key": "branch"}]).to_string();
        let branch = json!([{"do": "config", "key": "branch"}]).to_string();
        let id = site.submit("reach", vec![row(1, &first), row(2, &branch), row(3, &branch)]).await;
        // The first row stands in its request.
        let held = gate.arrived().await;
        let mut after = before.clone();
        after.values.insert("branch".to_owned(), "4".to_owned());
        grant(&site, "bank", &after).await;
        held.answer().await;
        assert_eq!(site.wait(id).await.status, BatchStatus::Success);
        let branches: Vec<Value> = outputs(&site, id).await.iter().map(|output| output.as_array().unwrap().last().unwrap().clone()).collect();
        assert_eq!(branches, [json!("3"), json!("4"), json!("4")], "{isolation:?}");
        // And what is taken away is gone.
        let id = site.submit("reach", vec![row(1, &first), row(2, &branch)]).await;
        let held = gate.arrived().await;
        grant(&site, "bank", &Grants { objects: None, ..before.clone() }).await;
        held.answer().await;
        assert_eq!(site.wait(id).await.status, BatchStatus::Failed);
        let results = site.store.read_results(id, None, 10).await.unwrap();
        assert!(results[0].output.is_some(), "{results:?}");
        assert!(format!("{:?}", results[1]).contains("was not granted: rowmill:objects/store@0.1.0"), "{results:?}");
        site.end_work().await;
    }
}

async fn databases_and_objects_are_there_for_workers(site: Site) {
    let bank = Bank::open().await;
    let grants = GrantSettings { databases_directory: Some(bank.directory().to_owned()), ..GrantSettings::default() };
    let mut site = site.working_by(WorkerSettings { slots: 1, grants, ..settings("one") });
    grant(&site, "bank", &everything()).await;
    site.jobs.register_processor("bank", "reach", guests::read("reaching")).await.unwrap();
    site.begin_work();
    let steps = json!([
        {"do": "sql", "database": "bank", "statement": "SELECT holder FROM accounts WHERE id = $1", "parameters": [1]}, {"do": "put", "name": "a", "text": "x"},
        {"do": "objects"},
    ]);
    let id = site.submit("reach", vec![row(1, &steps.to_string())]).await;
    assert_eq!(site.wait(id).await.status, BatchStatus::Success);
    assert_eq!(outputs(&site, id).await, [json!([[{"holder": "Ada"}], null, [["a", 1]]])]);
    site.end_work().await;
}

async fn outputs(site: &Site, id: BatchId) -> Vec<Value> {
    let results = site.store.read_results(id, None, 10).await.unwrap();
    results.into_iter().map(|row| serde_json::from_str(row.output.as_ref().unwrap()).unwrap()).collect()
}

/// A server whose answers the test gives.
struct Gate {
    listener: TcpListener,
    port: u16,
}

struct Held(TcpStream);

impl Gate {
    async fn open() -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Gate { listener, port }
    }

    async fn arrived(&self) -> Held {
        Held(self.listener.accept().await.unwrap().0)
    }
}

impl Held {
    async fn answer(mut self) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        self.0.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    }
}

async fn an_app_cannot_grant_itself_anything(site: Site) {
    let own = site.jobs.restricted_to("bank");
    match own.set_grants("bank", &Grants::default(), &everything()).await {
        Err(error @ JobError::OnlyOperators { .. }) => assert!(error.to_string().contains("grants are given by operators"), "{error}"),
        other => panic!("{other:?}"),
    }
    // Registering an app anew gives and takes nothing.
    grant(&site, "bank", &everything()).await;
    own.register_app(&rowmill::model::App::named("bank")).await.unwrap();
    assert_eq!(site.store.read_app("bank").await.unwrap().unwrap().grants, everything());
}

async fn grants_that_others_changed_are_not_overwritten(site: Site) {
    grant(&site, "bank", &everything()).await;
    assert!(!site.jobs.set_grants("bank", &Grants::default(), &Grants { http: None, ..everything() }).await.unwrap());
    assert_eq!(site.store.read_app("bank").await.unwrap().unwrap().grants, everything());
    grant(&site, "bank", &Grants::default()).await;
    let mut wrong = Grants::default();
    wrong.values.insert("a b".to_owned(), String::new());
    let refused = site.jobs.set_grants("bank", &Grants::default(), &wrong).await.unwrap_err();
    assert!(refused.to_string().contains("this cannot be granted to app \"bank\": \"a b\" cannot be the key"), "{refused}");
}

#[test]
fn the_command_line_grants_shows_and_takes_back() {
    let site = Installation::embedded();
    let (_, _, nothing) = site.run(&["apps", "show", "bank"]);
    assert!(nothing.contains("nothing is granted to app bank"), "{nothing}");
    site.said(&["apps", "grant", "bank", "--value", "branch=3", "--secret", "token=bank-token", "--http", "https://api.example.com"]);
    site.said(&["apps", "set", "bank", "--weight", "2"]);
    let shown = site.said(&[
        "apps",
        "grant",
        "bank",
        "--http",
        "GET,POST http://*.example.com:8080",
        "--net",
        "10.1.0.0/16",
        "--http-requests",
        "7",
        "--http-timeout",
        "2s",
        "--key-value",
        "--sql",
        "accounts",
        "--sql-rows",
        "100",
        "--objects",
        "--objects-count",
        "7",
    ]);
    insta::assert_snapshot!(shown, @r"
    GRANT      WHAT                                   LIMITS
    value      branch = 3
    secret     token: the workers' secret bank-token
    http       GET,POST http://*.example.com:8080     7 requests of a row, 8 at once, 1MiB sent, 8MiB received, 2s each
    http       https://api.example.com                7 requests of a row, 8 at once, 1MiB sent, 8MiB received, 2s each
    http       the addresses 10.1.0.0/16
    sql        the workers' database accounts         100 rows, 4MiB, 10s a statement
    key-value  values by keys                         64KiB a value, 16MiB in all
    objects    objects by names                       1MiB an object, 64MiB in all, 7 of them
    ");
    let json: Value = serde_json::from_str(&site.said(&["apps", "show", "bank", "--json"])).unwrap();
    assert_eq!(json["grants"]["secrets"], json!({"token": "bank-token"}));
    let (status, _, error) = site.run(&["apps", "revoke", "bank", "--http", "https://other.example.com"]);
    assert!(status == 2 && error.contains("it was not granted https://other.example.com"), "{error}");
    site.said(&["apps", "revoke", "bank", "--http", "https://api.example.com", "--http", "POST,GET http://*.example.com:8080", "--value", "branch"]);
    let json: Value = serde_json::from_str(&site.said(&["apps", "show", "bank", "--json"])).unwrap();
    assert!(json["grants"].get("http").is_none() && json["grants"].get("values").is_none(), "{json}");
    let (status, _, error) = site.run(&["apps", "grant", "bank", "--net", "10.0.0.0/8"]);
    assert!(status == 2 && error.contains("HTTP is not granted: say which hosts with --http"), "{error}");
    site.said(&["apps", "revoke", "bank", "--sql", "accounts", "--objects"]);
    for (arguments, sentence) in [
        (["revoke", "bank", "--sql", "accounts"].as_slice(), "it was granted no database accounts"),
        (&["revoke", "bank", "--objects"], "it was granted no objects"),
        (&["grant", "bank", "--sql-rows", "7"], "say with --sql of which databases these are the limits"),
        (&["grant", "bank", "--objects-bytes", "1MiB"], "no objects are granted: grant them with --objects"),
        (&["grant", "bank", "--objects", "--object-bytes", "9MiB"], "it should be 8MiB at most"),
        (&["grant", "bank", "--sql", "../bank"], "cannot be the name of a database"),
    ] {
        let (status, _, error) = site.run(&[&["apps"], arguments].concat());
        assert!(status == 2 && error.contains(sentence), "{arguments:?}: {error}");
    }
    let (status, _, error) = site.run(&["apps", "grant", "bank", "--http", "http://127.1"]);
    assert!(status == 2 && error.contains("is no rule for HTTP"), "{error}");
    site.said(&["apps", "revoke", "bank", "--all"]);
    let (_, _, nothing) = site.run(&["apps", "show", "bank"]);
    assert!(nothing.contains("nothing is granted to app bank"), "{nothing}");
}
