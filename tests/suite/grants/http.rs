//! Outgoing HTTP of guests, against a server that does its worst.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rowmill::grants::GrantSettings;
use rowmill::model::{Ending, Grants, HttpGrant, Limits};
use rowmill::sandbox::{Capabilities, Http, HttpBody, HttpCapability, HttpFailure, HttpTimes};
use serde_json::{Value, json};

use super::web::{Names, Web};
use super::{came_of, capabilities, run_rows, run_steps, session_with};
use crate::support::sessions::{bad_output, bare, limits, row};

fn granted(rules: &[&str], nets: &[&str]) -> HttpGrant {
    let allow = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    HttpGrant { allow, nets: nets.iter().map(|net| net.parse().unwrap()).collect(), ..HttpGrant::default() }
}

fn only(http: HttpGrant) -> Grants {
    Grants { http: Some(http), ..Grants::default() }
}

/// All methods to the server, by its address.
fn to(web: &Web) -> HttpGrant {
    granted(&[&format!("GET,POST http://127.0.0.1:{}", web.port)], &[])
}

fn get(url: impl AsRef<str>) -> Value {
    json!({"do": "http", "url": url.as_ref()})
}

/// What one request comes to: its status, or the kind of its error.
async fn ask(grant: &HttpGrant, settings: &GrantSettings, step: Value) -> String {
    told(&run_steps(&only(grant.clone()), settings, json!([step])).await[0])
}

fn told(answer: &Value) -> String {
    answer.get("error").map_or_else(|| answer["status"].to_string(), |error| error.as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_host_is_reached_with_the_granted_methods_only() {
    let web = Web::start().await;
    let settings = GrantSettings::default();
    let rule = format!("http://127.0.0.1:{}", web.port);
    let grant = granted(&[&rule], &[]);
    assert_eq!(run_steps(&only(grant.clone()), &settings, json!([get(web.url(""))])).await, [json!({"status": 200, "body": "fine", "bytes": 4})]);
    assert_eq!(ask(&grant, &settings, get(web.url("nothing"))).await, "404");
    let post = json!({"do": "http", "method": "POST", "url": web.url("echo"), "body": "hello", "headers": [["x-mine", "1"]]});
    assert_eq!(ask(&grant, &settings, post.clone()).await, "HttpRequestDenied");
    let echoed = run_steps(&only(to(&web)), &settings, json!([post])).await;
    let body = echoed[0]["body"].as_str().unwrap().to_lowercase();
    assert!(body.starts_with("post /echo http/1.1\r\n") && body.contains("x-mine: 1") && body.ends_with("\r\n\r\nhello"), "{body}");
    assert!(body.contains(&format!("host: 127.0.0.1:{}", web.port)), "{body}");
    assert_eq!(web.asked().len(), 3);
}

/// The log of the row says what was refused and how it would be granted.
#[tokio::test(flavor = "multi_thread")]
async fn net_1_what_is_not_granted_is_refused_with_the_grant_that_would_allow_it() {
    let web = Web::start().await;
    let grants = only(granted(&["https://api.example.com"], &[]));
    let run = run_rows(&grants, &GrantSettings::default(), &[json!([get(web.url(""))])]).await.remove(0);
    assert_eq!(told(&came_of(&run)[0]), "HttpRequestDenied");
    let log = run.log.unwrap();
    let way = format!("is not granted (rowmill apps grant APP --http 'GET http://127.0.0.1:{}')", web.port);
    assert!(log.contains(&way), "{log}");
    // Without any grant the call is denied, too, should such code ever come to run.
    let nothing = run_steps(&Grants::default(), &GrantSettings::default(), json!([get(web.url(""))])).await;
    assert_eq!(told(&nothing[0]), "HttpRequestDenied");
    assert_eq!(web.asked(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn net_2_no_spelling_of_an_address_leads_past_the_rules() {
    let web = Web::start().await;
    let port = web.port;
    let grant = granted(&[&format!("http://*.example.com:{port}"), &format!("http://localhost:{port}")], &[]);
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "0",
        "[::]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "user@localhost",
        "user:x@127.0.0.1",
        "127.0.0.1.example.com",
        "a.example.com",
        "example.com",
        "localhost%00.example.com",
        "127.0.0.1#.example.com",
        "127.0.0.1%23.example.com",
        "127.0.0.1\\.example.com",
        "[::1%25.example.com]",
        "",
    ] {
        let names = Names::new(&[
            ("localhost", &[&["127.0.0.1"]]),
            ("127.0.0.1.example.com", &[&["127.0.0.1"]]),
            ("a.example.com", &[&["::ffff:127.0.0.1"]]),
        ]);
        let settings = GrantSettings { resolver: names, ..GrantSettings::default() };
        let end = ask(&grant, &settings, get(format!("http://{host}:{port}/"))).await;
        assert!(["HttpRequestDenied", "HttpRequestUriInvalid", "DestinationIpProhibited"].contains(&end.as_str()), "{host}: {end}");
    }
    assert_eq!(web.asked(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn net_2_a_granted_name_reaches_no_address_that_is_not_public_unless_it_is_granted_too() {
    let web = Web::start().await;
    let rule = format!("http://api.example.com:{}", web.port);
    let url = format!("http://api.example.com:{}/", web.port);
    for address in [
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "169.254.169.254",
        "fd00:ec2::254",
        "192.168.0.1",
        "100.64.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "224.0.0.1",
        "0.0.0.0",
        "::",
    ] {
        let address: &'static str = address;
        let settings = GrantSettings { resolver: Names::new(&[("api.example.com", &[&[address]])]), ..GrantSettings::default() };
        assert_eq!(ask(&granted(&[&rule], &[]), &settings, get(&url)).await, "DestinationIpProhibited", "{address}");
    }
    // One bad address among good ones is enough.
    let settings = GrantSettings { resolver: Names::new(&[("api.example.com", &[&["1.1.1.1", "127.0.0.1"]])]), ..GrantSettings::default() };
    assert_eq!(ask(&granted(&[&rule], &[]), &settings, get(&url)).await, "DestinationIpProhibited");
    assert_eq!(web.asked(), Vec::<String>::new());
    let settings = GrantSettings { resolver: Names::new(&[("api.example.com", &[&["127.0.0.1"]])]), ..GrantSettings::default() };
    assert_eq!(ask(&granted(&[&rule], &["127.0.0.0/8"]), &settings, get(&url)).await, "200");
}

/// A name that has another address at the next look: what was looked at is what is connected to, and each request looks once.
#[tokio::test(flavor = "multi_thread")]
async fn net_2_a_name_is_looked_up_once_for_a_request() {
    let web = Web::start().await;
    let names = Names::new(&[("api.example.com", &[&["127.0.0.1"], &["169.254.169.254"]])]);
    let settings = GrantSettings { resolver: Arc::clone(&names) as _, ..GrantSettings::default() };
    let grant = granted(&[&format!("http://api.example.com:{}", web.port)], &["127.0.0.1"]);
    let url = format!("http://api.example.com:{}/", web.port);
    let ends = run_steps(&only(grant), &settings, json!([get(&url), get(&url)])).await;
    assert_eq!(ends.iter().map(told).collect::<Vec<_>>(), ["200", "DestinationIpProhibited"]);
    assert_eq!((names.looks(), web.asked().len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn net_2_a_redirect_is_followed_by_the_guest_and_checked_like_any_request() {
    let web = Web::start().await;
    let port = web.port;
    let names = Names::new(&[("good.example.com", &[&["127.0.0.1"]]), ("bad.example.com", &[&["169.254.169.254"]])]);
    let settings = GrantSettings { resolver: names, ..GrantSettings::default() };
    let grant = granted(&[&format!("http://good.example.com:{port}"), "http://bad.example.com"], &["127.0.0.1"]);
    let follow = |to: String| json!({"do": "http", "url": format!("http://good.example.com:{port}/redirect?{to}"), "follow": true});
    assert_eq!(ask(&grant, &settings, follow(format!("http://good.example.com:{port}/"))).await, "200");
    assert_eq!(ask(&grant, &settings, follow("http://bad.example.com/latest/meta-data".to_owned())).await, "DestinationIpProhibited");
    assert_eq!(ask(&grant, &settings, follow(format!("http://127.0.0.1:{port}/"))).await, "HttpRequestDenied");
    // The host itself follows none.
    let plain = json!({"do": "http", "url": format!("http://good.example.com:{port}/redirect?http://127.0.0.1:{port}/")});
    assert_eq!(ask(&grant, &settings, plain).await, "302");
    assert_eq!(web.asked().iter().filter(|line| *line == "GET / HTTP/1.1").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn net_3_bad_answers_are_ends_of_their_own_and_stop_nothing() {
    let web = Web::start().await;
    let grants = only(HttpGrant { response_bytes_max: 100_000, ..to(&web) });
    let steps = ["endless", "huge", "headers", "nonsense", "cut", ""].map(|path| get(web.url(path)));
    let ends = run_steps(&grants, &GrantSettings::default(), json!(steps)).await;
    let ends: Vec<String> = ends.iter().map(told).collect();
    assert!(ends[0].starts_with("HttpResponseBodySize") && ends[1].starts_with("HttpResponseBodySize"), "{ends:?}");
    assert!(ends[2].starts_with("HttpResponseHeaderSectionSize"), "{ends:?}");
    assert_eq!(ends[3..], ["HttpProtocolError", "ConnectionTerminated", "200"]);
}

/// The limit of the grant ends a request, and the deadline of the row ends all of it.
#[tokio::test(flavor = "multi_thread")]
async fn net_3_who_does_not_answer_is_not_waited_for() {
    let web = Web::start().await;
    let grants = only(HttpGrant { timeout: Duration::from_millis(100), ..to(&web) });
    let ends = run_steps(&grants, &GrantSettings::default(), json!([get(web.url("silent")), get(web.url("slow"))])).await;
    assert_eq!(ends.iter().map(told).collect::<Vec<_>>(), ["HttpResponseTimeout", "HttpResponseTimeout"]);
    let patient = capabilities("tests", &only(HttpGrant { timeout: Duration::from_secs(3_600), ..to(&web) }), &GrantSettings::default()).await;
    let timeout = Duration::from_millis(200);
    let mut session = session_with(patient, Limits { timeout, ..limits() });
    for path in ["silent", "slow"] {
        let run = session.run_row(&row(1, &json!([get(web.url(path))]).to_string())).await;
        assert_eq!(bare(run.ending), Ending::Deadline { limit: timeout, frames: vec![] }, "{path}");
    }
    assert_eq!(told(&came_of(&session.run_row(&row(2, &json!([get(web.url(""))]).to_string())).await)[0]), "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn net_3_requests_are_counted_per_row_and_at_once() {
    let web = Web::start().await;
    let grants = only(HttpGrant { requests_max: 3, ..to(&web) });
    let many = json!([get(web.url("")), get(web.url("")), get(web.url("")), get(web.url(""))]);
    let runs = run_rows(&grants, &GrantSettings::default(), &[many.clone(), many]).await;
    for run in &runs {
        assert_eq!(came_of(run).iter().map(told).collect::<Vec<_>>(), ["200", "200", "200", "HttpRequestDenied"]);
        assert!(run.log.as_ref().unwrap().contains("a row may make 3 HTTP requests"), "{:?}", run.log);
    }
    let grants = only(HttpGrant { at_once_max: 2, ..to(&web) });
    let ends = run_steps(&grants, &GrantSettings::default(), json!([{"do": "at-once", "url": web.url(""), "count": 5}])).await;
    let ends: Vec<&str> = ends[0].as_array().unwrap().iter().map(|end| end.as_str().unwrap()).collect();
    assert_eq!(ends.iter().filter(|end| **end == "200").count(), 2, "{ends:?}");
    assert_eq!(ends.iter().filter(|end| end.contains("ConnectionLimitReached")).count(), 3, "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn net_3_what_is_sent_is_bounded() {
    let web = Web::start().await;
    let grants = only(HttpGrant { request_bytes_max: 20_000, ..to(&web) });
    let post = |bytes: u32| json!({"do": "http", "method": "POST", "url": web.url("echo"), "bytes": bytes});
    let steps = json!([post(20_000), post(30_000), {"do": "upload", "url": web.url("swallow"), "bytes": 30_000}]);
    let ends = run_steps(&grants, &GrantSettings::default(), steps).await;
    assert_eq!(told(&ends[0]), "200");
    assert!(told(&ends[1]).starts_with("HttpRequestBodySize"), "{}", ends[1]);
    assert!(ends[2].as_str().unwrap().contains("HttpRequestBodySize"), "{}", ends[2]);
    // Headers beyond bounds end the row, and the next one is none the worse.
    let runs = run_rows(&grants, &GrantSettings::default(), &[json!([{"do": "headers", "bytes": 1_000}]), json!([get(web.url(""))])]).await;
    assert_eq!(bad_output(&runs[0]), "what it passed cannot be read: total size of fields exceeds limit");
    assert_eq!(told(&came_of(&runs[1])[0]), "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_to_https_and_never_left_out() {
    let web = Web::start().await;
    let grant = granted(&[&format!("https://127.0.0.1:{}", web.port)], &[]);
    let end = ask(&grant, &GrantSettings::default(), get(format!("https://127.0.0.1:{}/", web.port))).await;
    assert_eq!(end, "TlsProtocolError");
    assert_eq!(web.asked(), Vec::<String>::new());
}

struct Panics;

#[async_trait]
impl Http for Panics {
    async fn send(&self, _: http::Request<HttpBody>, _: HttpTimes) -> Result<http::Response<HttpBody>, HttpFailure> {
        panic!("a mistake of the host")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_host_ends_the_call_and_nothing_else() {
    let http = HttpCapability { client: Arc::new(Panics), requests_max: 10, at_once_max: 10 };
    let mut session = session_with(Capabilities { http: Some(http), ..Capabilities::default() }, limits());
    for line in 1..3 {
        let run = session.run_row(&row(line, &json!([get("http://example.com/")]).to_string())).await;
        let answer = came_of(&run);
        assert!(told(&answer[0]).starts_with("InternalError"), "{answer:?}");
        assert!(!answer[0].to_string().contains("mistake"), "{answer:?}");
    }
}
