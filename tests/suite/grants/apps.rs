//! Grants of apps: given by operators, asked for by imports, looked at when code is registered and when rows are run.

use rowmill::jobs::JobError;
use rowmill::model::{BatchStatus, Grants, HttpGrant, KeyValueGrant};
use serde_json::{Value, json};

use crate::jobs::{Site, on_each_store, row};
use crate::service::Installation;
use crate::support::guests;

on_each_store! {
    code_is_registered_where_all_that_it_imports_is_granted
    what_is_taken_back_is_not_there_for_the_next_batch
    an_app_cannot_grant_itself_anything
    grants_that_others_changed_are_not_overwritten
}

fn everything() -> Grants {
    let mut grants = Grants { key_value: Some(KeyValueGrant::default()), ..Grants::default() };
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

async fn what_is_taken_back_is_not_there_for_the_next_batch(mut site: Site) {
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
    ]);
    insta::assert_snapshot!(shown, @r"
    GRANT      WHAT                                   LIMITS
    value      branch = 3
    secret     token: the workers' secret bank-token
    http       GET,POST http://*.example.com:8080     7 requests of a row, 8 at once, 1MiB sent, 8MiB received, 2s each
    http       https://api.example.com                7 requests of a row, 8 at once, 1MiB sent, 8MiB received, 2s each
    http       the addresses 10.1.0.0/16
    key-value  values by keys                         64KiB a value, 16MiB in all
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
    let (status, _, error) = site.run(&["apps", "grant", "bank", "--http", "http://127.1"]);
    assert!(status == 2 && error.contains("is no rule for HTTP"), "{error}");
    site.said(&["apps", "revoke", "bank", "--all"]);
    let (_, _, nothing) = site.run(&["apps", "show", "bank"]);
    assert!(nothing.contains("nothing is granted to app bank"), "{nothing}");
}
