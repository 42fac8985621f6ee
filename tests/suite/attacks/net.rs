//! The network, through a worker. Each rule of its own is tested with the grants.

use std::sync::Arc;
use std::time::Duration;

use rowmill::grants::GrantSettings;
use rowmill::jobs::JobError;
use rowmill::model::{BatchStatus, Grants, HttpGrant, KeyValueGrant, Limits, RecordedOutcome, RowStatus};
use rowmill::worker::WorkerSettings;
use rowmill_tests::reaching::with_what_it_imports;
use rowmill_tests::servers::{Redis, shared_postgres};
use serde_json::{Value, json};

use super::{Arena, HEALTHY, HOSTILE, free, numbers};
use crate::grants::web::{Names, Web};
use crate::jobs::{row, settings};
use crate::support::guests;

/// What the guest that reaches out imports, with HTTP as said.
fn granted(http: HttpGrant) -> Grants {
    let values = [("a".to_owned(), "b".to_owned())].into();
    with_what_it_imports(Grants { http: Some(http), key_value: Some(KeyValueGrant::default()), values, ..Grants::default() })
}

fn to(rules: &[String]) -> HttpGrant {
    HttpGrant { allow: rules.iter().map(|rule| rule.parse().unwrap()).collect(), ..HttpGrant::default() }
}

async fn arena(names: Arc<Names>) -> Arena {
    let grants = GrantSettings { resolver: names, ..GrantSettings::default() };
    Arena::working_by(WorkerSettings { grants, ..settings("arena") }).await
}

async fn grant(arena: &Arena, app: &str, http: HttpGrant) {
    let before = arena.site.store.read_app(app).await.unwrap().map(|app| app.grants).unwrap_or_default();
    assert!(arena.site.jobs.set_grants(app, &before, &granted(http)).await.unwrap());
}

fn get(url: impl AsRef<str>) -> Value {
    json!({"do": "http", "url": url.as_ref()})
}

/// What came of the steps of a row: the status, or the kind of the error.
#[track_caller]
fn came(row: &RecordedOutcome) -> Vec<String> {
    assert_eq!(row.status, Some(RowStatus::Success), "{row:?}");
    let steps: Vec<Value> = serde_json::from_str(row.output.as_ref().unwrap()).unwrap();
    let told = |step: &Value| step.get("error").map_or_else(|| step["status"].to_string(), |error| error.as_str().unwrap().to_owned());
    steps.iter().map(told).collect()
}

async fn steps(arena: &Arena, steps: Value) -> Vec<String> {
    let input = steps.to_string();
    let (_, rows) = arena.attack("reach", &[&input]).await;
    came(&rows[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn net_1_without_a_grant_there_is_no_upload_and_with_another_no_request() {
    let (web, redis) = (Web::start().await, Redis::start().unwrap());
    let arena = arena(Names::new(&[])).await;
    let refused = arena.site.jobs.register_processor(HOSTILE, "reach", guests::read("reaching")).await;
    let Err(JobError::Unusable(error)) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("(an operator grants it: rowmill apps grant hostile --http https://HOST)"), "{error}");
    grant(&arena, HOSTILE, to(&["https://api.example.com".to_owned()])).await;
    arena.deploy("reach", guests::read("reaching")).await;
    // Another app's server, our own database and Redis.
    let database = shared_postgres().rsplit('@').next().unwrap().split(['/', '?']).next().unwrap().to_owned();
    let redis = redis.url().trim_start_matches("redis://").rsplit('@').next().unwrap().to_owned();
    let urls = [web.url(""), format!("http://{database}/"), format!("http://{redis}/"), "http://api.example.com/".to_owned()];
    let input = json!(urls.iter().map(get).collect::<Vec<_>>()).to_string();
    let (_, rows) = arena.attack("reach", &[&input]).await;
    assert_eq!(came(&rows[0]), ["HttpRequestDenied"; 4]);
    let log = rows[0].log.as_deref().unwrap();
    assert!(log.contains(&format!("is not granted (rowmill apps grant APP --http 'GET http://127.0.0.1:{}')", web.port)), "{log}");
    assert_eq!(web.asked(), Vec::<String>::new());
    arena.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn net_2_a_granted_name_leads_to_no_address_that_is_not_granted() {
    let web = Web::start().await;
    let port = web.port;
    let evil = ["loopback", "mapped", "link", "meta", "private", "any"].map(|name| format!("{name}.example.com"));
    let names = Names::new(&[
        (&evil[0], &[&["127.0.0.1"]]),
        (&evil[1], &[&["::ffff:127.0.0.1"]]),
        (&evil[2], &[&["fe80::1"]]),
        (&evil[3], &[&["169.254.169.254"]]),
        (&evil[4], &[&["1.1.1.1", "10.0.0.1"]]),
        (&evil[5], &[&["0.0.0.0"]]),
        // Once what is granted, then what is not.
        ("again.example.com", &[&["127.0.0.2"], &["127.0.0.1"]]),
        ("good.example.com", &[&["127.0.0.1"]]),
    ]);
    let arena = arena(names).await;
    let rules = [format!("http://*.example.com:{port}"), format!("http://localhost:{port}")];
    grant(&arena, HOSTILE, HttpGrant { nets: ["127.0.0.2".parse().unwrap()].into(), ..to(&rules) }).await;
    arena.deploy("reach", guests::read("reaching")).await;
    let urls: Vec<Value> = evil.iter().map(|name| get(format!("http://{name}:{port}/"))).collect();
    assert_eq!(steps(&arena, json!(urls)).await, ["DestinationIpProhibited"; 6]);
    // Nothing listens at the address that is granted; the other is not looked at for this request, and refused for the next.
    let again = get(format!("http://again.example.com:{port}/"));
    let ends = steps(&arena, json!([again, again])).await;
    assert!(!["200", "DestinationIpProhibited"].contains(&ends[0].as_str()) && ends[1] == "DestinationIpProhibited", "{ends:?}");
    let spelled = ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]", "[::ffff:7f00:1]", "localhost."];
    for end in steps(&arena, json!(spelled.map(|host| get(format!("http://{host}:{port}/"))))).await {
        let refused = ["HttpRequestDenied", "HttpRequestUriInvalid", "DestinationIpProhibited", "DnsError"];
        assert!(refused.iter().any(|kind| end.starts_with(kind)), "{end}");
    }
    assert_eq!(web.asked(), Vec::<String>::new());
    // The healthy app has the same server granted, and reaches it; what it is redirected to is nobody's grant.
    grant(&arena, HEALTHY, HttpGrant { nets: ["127.0.0.1".parse().unwrap()].into(), ..to(&[format!("http://good.example.com:{port}")]) }).await;
    arena.site.jobs.register_processor(HEALTHY, "reach", guests::read("reaching")).await.unwrap();
    let follow = json!({"do": "http", "url": format!("http://good.example.com:{port}/redirect?http://127.0.0.1:{port}/"), "follow": true});
    let input = json!([get(format!("http://good.example.com:{port}/")), follow]).to_string();
    let request = rowmill::jobs::BatchRequest::new(HEALTHY, "reach").with_rows(vec![row(1, &input)]);
    let id = arena.site.jobs.batch_submit(request).await.unwrap();
    assert_eq!(arena.site.wait(id).await.status, BatchStatus::Success);
    assert_eq!(came(&arena.rows(id).await[0]), ["200", "HttpRequestDenied"]);
    arena.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn net_3_bad_servers_and_too_many_requests_cost_a_row_and_no_more() {
    let web = Web::start().await;
    let arena = arena(Names::new(&[])).await;
    let rule = format!("GET,POST http://127.0.0.1:{}", web.port);
    let http = HttpGrant { response_bytes_max: 100_000, timeout: Duration::from_millis(500), ..to(&[rule]) };
    grant(&arena, HOSTILE, http.clone()).await;
    arena.deploy("reach", guests::read("reaching")).await;
    let ends = steps(&arena, json!(["silent", "slow", "endless", "huge", "headers", "nonsense", "cut", ""].map(|path| get(web.url(path))))).await;
    assert_eq!(ends[..2], ["HttpResponseTimeout", "HttpResponseTimeout"]);
    assert!(ends[2].starts_with("HttpResponseBodySize") && ends[3].starts_with("HttpResponseBodySize"), "{ends:?}");
    assert!(ends[4].starts_with("HttpResponseHeaderSectionSize"), "{ends:?}");
    assert_eq!(ends[5..], ["HttpProtocolError", "ConnectionTerminated", "200"]);
    // Ten thousand at once: as many as are granted are sent, and the row ends by its answers or by its limits.
    let before = web.asked().len();
    let input = json!([{"do": "at-once", "url": web.url(""), "count": 10_000}]).to_string();
    let (_, rows) = arena.attack("reach", &[&input, "[]"]).await;
    println!("{:?}", rows[0].messages);
    assert_eq!(rows[1].status, Some(RowStatus::Success));
    let sent = web.asked().len() - before;
    assert!(sent <= http.at_once_max as usize, "{sent} requests were sent");
    // More headers than there may be.
    let headers = json!([{"do": "headers", "bytes": 1}, {"do": "headers", "bytes": 1_000}]).to_string();
    let (_, rows) = arena.attack("reach", &[&headers, "[]"]).await;
    assert_eq!((rows[0].status, rows[1].status), (Some(RowStatus::Failed), Some(RowStatus::Success)), "{rows:?}");
    // Who is patient is ended by the row's deadline.
    grant(&arena, HOSTILE, HttpGrant { timeout: Duration::from_secs(3_600), ..http }).await;
    let app = arena.site.store.read_app(HOSTILE).await.unwrap().unwrap();
    let limits = Limits { timeout: Duration::from_millis(300), ..free() };
    arena.site.jobs.register_app(&rowmill::model::App { limits: Some(limits), ..app }).await.unwrap();
    let input = json!([get(web.url("silent"))]).to_string();
    assert_eq!(numbers(&arena.attack_row("reach", &input).await), ("deadline", vec![300]));
    arena.close().await;
}
