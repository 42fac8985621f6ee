//! Keys and values: an app's own, in the process and in a real Redis, with the same ends in both.

use rowmill::grants::{GrantSettings, Granter};
use rowmill::model::{Grants, KeyValueGrant};
use rowmill_tests::servers::Redis;
use serde_json::{Value, json};

use super::{came_of, run_steps, session_with};
use crate::support::sessions::{limits, row};

fn granted() -> Grants {
    Grants { key_value: Some(KeyValueGrant::default()), ..Grants::default() }
}

/// Both places.
fn places() -> Vec<(GrantSettings, Option<Redis>)> {
    let redis = Redis::start().unwrap();
    vec![(GrantSettings::default(), None), (GrantSettings { redis_url: Some(redis.url()), ..GrantSettings::default() }, Some(redis))]
}

async fn steps_of(granter: &Granter, app: &str, grants: &Grants, steps: Value) -> Vec<Value> {
    let mut session = session_with(granter.capabilities(app, grants).await.unwrap(), limits());
    came_of(&session.run_row(&row(1, &steps.to_string())).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_is_there_until_it_is_removed() {
    for (settings, _redis) in places() {
        let granter = Granter::new(settings);
        let steps = json!([
            {"do": "get", "key": "a"}, {"do": "set", "key": "a", "value": "ä\u{0}1"}, {"do": "get", "key": "a"}, {"do": "set", "key": "b}:values", "value": ""},
            {"do": "keys"}, {"do": "delete", "key": "a"}, {"do": "delete", "key": "a"}, {"do": "get", "key": "a"},
            {"do": "increment", "key": "n", "delta": 5}, {"do": "increment", "key": "n", "delta": 37}, {"do": "get", "key": "n"},
        ]);
        let came = steps_of(&granter, "a", &granted(), steps).await;
        assert_eq!(
            came,
            [
                json!(null),
                json!(null),
                json!("ä\u{0}1"),
                json!(null),
                json!(["a", "b}:values"]),
                json!(null),
                json!(null),
                json!(null),
                json!(5),
                json!(42),
                json!("42")
            ]
        );
        // The next instance finds it.
        assert_eq!(steps_of(&granter, "a", &granted(), json!([{"do": "get", "key": "n"}])).await, [json!("42")]);
    }
}

/// Names that a careless key would mix up.
#[tokio::test(flavor = "multi_thread")]
async fn sec_1_no_app_meets_the_keys_of_another() {
    for (settings, _redis) in places() {
        let granter = Granter::new(settings);
        let apps = ["a", "a:", "a}:values", "a}", "{a}", "", "a:b", "A", "a\0", "kv:a"];
        for app in apps {
            let set = json!([{"do": "keys"}, {"do": "get", "key": "k"}, {"do": "set", "key": "k", "value": app}, {"do": "set", "key": "b:k", "value": app}]);
            assert_eq!(steps_of(&granter, app, &granted(), set).await[..2], [json!([]), json!(null)], "{app:?}");
        }
        for app in apps {
            let read = json!([{"do": "get", "key": "k"}, {"do": "keys"}]);
            assert_eq!(steps_of(&granter, app, &granted(), read).await, [json!(app), json!(["b:k", "k"])], "{app:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_values_and_all_of_them_are_bounded() {
    for (settings, _redis) in places() {
        let granter = Granter::new(settings);
        let grants = Grants { key_value: Some(KeyValueGrant { value_bytes_max: 1_000, total_bytes_max: 3_000 }), ..Grants::default() };
        let steps = json!([
            {"do": "set-bytes", "key": "a", "bytes": 1_001}, {"do": "set-bytes", "key": "a", "bytes": 1_000}, {"do": "set-bytes", "key": "b", "bytes": 1_000},
            {"do": "set-bytes", "key": "c", "bytes": 1_000}, {"do": "set-bytes", "key": "a", "bytes": 900}, {"do": "get", "key": "c"}, {"do": "delete", "key": "b"},
            {"do": "set-bytes", "key": "c", "bytes": 1_000}, {"do": "set-bytes", "key": "d", "bytes": 900}, {"do": "increment", "key": "n", "delta": 1},
            {"do": "get", "key": ""}, {"do": "get", "key": "k".repeat(513)}, {"do": "get-many", "count": 33}, {"do": "get-many", "count": 32},
        ]);
        let came = steps_of(&granter, "a", &grants, steps).await;
        let error = |at: usize| came[at]["error"].as_str().unwrap_or_else(|| panic!("{at}: {:?}", came[at]));
        assert_eq!(error(0), "the value of \"a\" has 1001 bytes, and may have 1000 at most");
        assert_eq!([&came[1], &came[2], &came[4], &came[5], &came[6], &came[7]], [&Value::Null; 6]);
        assert!(error(3).contains("may have 3000 bytes together"), "{came:?}");
        assert!(came[8].is_null() && error(9).contains("may have 3000 bytes together"), "{came:?}");
        assert_eq!(error(10), "a key has 1 to 512 bytes, and this one has 0");
        assert_eq!(error(11), "a key has 1 to 512 bytes, and this one has 513");
        assert_eq!(error(12), "a call has 32 keys at most, and this one has 33");
        assert_eq!(came[13], json!(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_number_is_not_added_to_and_a_sum_does_not_overflow() {
    for (settings, _redis) in places() {
        let granter = Granter::new(settings);
        let max = i64::MAX as u64;
        let steps = json!([
            {"do": "set", "key": "a", "value": "x"}, {"do": "increment", "key": "a", "delta": 1}, {"do": "set", "key": "b", "value": "-5"}, {"do": "increment", "key": "b", "delta": 1},
            {"do": "increment", "key": "c", "delta": u64::MAX}, {"do": "increment", "key": "c", "delta": max}, {"do": "increment", "key": "c", "delta": 1}, {"do": "get", "key": "c"},
        ]);
        let came = steps_of(&granter, "a", &granted(), steps).await;
        for at in [1, 3, 4, 6] {
            assert!(came[at]["error"].as_str().unwrap().contains("no whole number that can be added to"), "{at}: {came:?}");
        }
        assert_eq!((&came[5], &came[7]), (&json!(max), &json!(max.to_string())));
    }
}

/// Many instances at once: nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn additions_at_the_same_time_are_all_counted() {
    for (settings, _redis) in places() {
        let granter = Granter::new(settings);
        let add = json!([{"do": "increment", "key": "n", "delta": 1}, {"do": "increment", "key": "n", "delta": 1}]);
        let grants = granted();
        futures_util::future::join_all((0..4).map(|_| steps_of(&granter, "a", &grants, add.clone()))).await;
        assert_eq!(steps_of(&granter, "a", &granted(), json!([{"do": "get", "key": "n"}])).await, [json!("8")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_keys_than_a_page_are_all_listed() {
    for (settings, _redis) in places() {
        let granter = Granter::new(settings);
        let keys: Vec<String> = (0..350).map(|number| format!("key-{number:03}")).collect();
        let set: Vec<Value> = keys.iter().map(|key| json!({"do": "set", "key": key, "value": "v"})).collect();
        steps_of(&granter, "a", &granted(), json!(set)).await;
        assert_eq!(steps_of(&granter, "a", &granted(), json!([{"do": "keys"}])).await, [json!(keys)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_is_an_error_of_the_call_and_comes_back_empty() {
    let mut redis = Redis::start().unwrap();
    let granter = Granter::new(GrantSettings { redis_url: Some(redis.url()), ..GrantSettings::default() });
    let grants = Grants { key_value: Some(KeyValueGrant { total_bytes_max: 1_000, ..KeyValueGrant::default() }), ..Grants::default() };
    let (full, get) = (json!([{"do": "set-bytes", "key": "k", "bytes": 900}]), json!([{"do": "get", "key": "k"}]));
    assert_eq!(steps_of(&granter, "a", &grants, full.clone()).await, [json!(null)]);
    redis.kill();
    let came = steps_of(&granter, "a", &grants, get.clone()).await;
    assert_eq!(came[0]["error"], "the keys and values cannot be reached at the moment");
    redis.restart().unwrap();
    let start = std::time::Instant::now();
    loop {
        let came = steps_of(&granter, "a", &grants, get.clone()).await;
        if came[0].is_null() {
            break;
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(60), "{came:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // What was there before weighs nothing any more.
    assert_eq!(steps_of(&granter, "a", &grants, full).await, [json!(null)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grant_there_are_no_values() {
    let came = run_steps(&Grants::default(), &GrantSettings::default(), json!([{"do": "set", "key": "a", "value": "b"}])).await;
    assert_eq!(came, [json!({"error": "no store of values is granted to this app"})]);
}
