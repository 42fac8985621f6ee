use super::*;

fn sources(directory: &std::path::Path, environment: &[(&str, &str)], set: &[&str]) -> Sources {
    Sources {
        directory: directory.to_owned(),
        file: None,
        environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        set: set.iter().map(|text| (*text).to_owned()).collect(),
    }
}

fn load(environment: &[(&str, &str)], set: &[&str]) -> Result<Config, ConfigError> {
    Config::load(&sources(std::path::Path::new("/nonexistent"), environment, set))
}

fn refusal(environment: &[(&str, &str)], set: &[&str]) -> String {
    load(environment, set).unwrap_err().to_string()
}

#[test]
fn defaults_hold_when_nothing_is_said() {
    let config = load(&[("PATH", "/bin"), ("ROWMILL_LOG", "trace"), ("ROWMILL_TEST_SEED", "1"), ("ROWMILL_REDIS_URL", "")], &[]).unwrap();
    assert_eq!(config.store.url, StoreUrl::Sqlite("rowmill.db".into()));
    assert_eq!((config.store.connections, config.store.pooler), (10, Pooler::None));
    assert!(config.redis.url.is_none() && config.redis.cache == Duration::from_secs(60));
    assert_eq!(config.objects.url, ObjectsUrl::Directory("rowmill-objects".into()));
    assert!(!config.objects.path_style);
    assert_eq!(config.worker.slots, config.worker.query_slots * 2);
    assert_eq!(config.limits, LimitsConfig::default());
}

#[test]
fn urls_are_taken_apart() {
    let config =
        load(&[], &["objects.url=s3://bucket/some/prefix/", "objects.endpoint=http://localhost:9000", "store.url=sqlite:///var/a.db"]).unwrap();
    assert_eq!(config.objects.url, ObjectsUrl::S3 { bucket: "bucket".to_owned(), prefix: "some/prefix".to_owned() });
    assert!(config.objects.path_style);
    assert_eq!(config.store.url, StoreUrl::Sqlite("/var/a.db".into()));
    let config = load(&[], &["objects.url=file:/objects", "objects.endpoint=http://localhost:9000", "objects.path_style=false"]).unwrap();
    assert!(config.objects.url == ObjectsUrl::Directory("/objects".into()) && !config.objects.path_style);
}

#[test]
fn the_last_flag_of_a_key_holds_and_flags_come_before_the_environment() {
    let config = load(&[("ROWMILL_WORKER_SLOTS", "3"), ("ROWMILL_WORKER_HEARTBEAT", "2s")], &["worker.slots=4", "worker.slots=5"]).unwrap();
    assert_eq!((config.worker.slots, config.worker.heartbeat), (5, Duration::from_secs(2)));
}

#[test]
fn what_is_no_setting_is_refused_with_the_nearest_one() {
    assert_eq!(
        refusal(&[], &["worker.slot=3"]),
        "worker.slot (flag --set) is no setting; the nearest one is worker.slots (`rowmill config` shows all)"
    );
    assert_eq!(
        refusal(&[("ROWMILL_WORKER_SLOT", "3")], &[]),
        "ROWMILL_WORKER_SLOT (environment) is no setting; the nearest one is ROWMILL_WORKER_SLOTS (`rowmill config` shows all)"
    );
}

#[test]
fn a_value_out_of_range_is_refused_with_its_place() {
    assert_eq!(
        refusal(&[("ROWMILL_WORKER_SLOTS", "0")], &[]),
        "worker.slots (environment, ROWMILL_WORKER_SLOTS) cannot be used: it should be between 1 and 1000, not 0"
    );
}

#[test]
fn a_set_without_a_value_is_not_repeated() {
    for set in ["postgres://u:hunter2@db", "postgres://u:hunter2@db/a?b=c", "=hunter2", "store.url"] {
        let refused = refusal(&[], &[set]);
        assert!(refused.starts_with("--set takes SECTION.KEY=VALUE") && !refused.contains("hunter2"), "{refused}");
    }
}

#[test]
fn nothing_that_is_shown_or_debugged_tells_a_secret() {
    let secrets = [
        "store.url=postgres://me:hunter2@db/jobs",
        "redis.url=redis://:hunter2@cache",
        "objects.access_key_id=hunter2",
        "objects.secret_access_key=hunter2",
    ];
    let config = load(&[], &secrets).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let StoreUrl::Postgres(url) = &config.store.url else { panic!() };
    assert_eq!(url.expose(), "postgres://me:hunter2@db/jobs");
    assert_eq!(config.objects.secret_access_key.unwrap().expose(), "hunter2");
}

/// Every key is read into a field: a setting that nobody reads would be refused nowhere and do nothing.
#[test]
fn every_setting_can_be_given_by_its_variable() {
    for setting in SETTINGS {
        let least;
        let value = match setting.kind {
            Kind::Text | Kind::Secret => "x",
            Kind::Key => "a key of thirty-two bytes or more",
            Kind::Path => continue,
            Kind::StoreUrl => "postgres://h/d",
            Kind::RedisUrl => "redis://h",
            Kind::ObjectsUrl => "s3://b",
            Kind::Endpoint => "https://h",
            Kind::Count(..) => "7",
            Kind::Time(..) | Kind::Keep => "7s",
            Kind::Size(bytes, _) => {
                least = show_size(bytes);
                &least
            }
            Kind::Switch => "true",
            Kind::Choice(choices) => choices[choices.len() - 1],
        };
        let before = format!("{:?}", load(&[], &[]).unwrap());
        let config = load(&[(setting.variable().as_str(), value)], &[]).unwrap();
        let in_force = config.in_force().iter().find(|in_force| in_force.setting.name() == setting.name()).unwrap();
        assert_eq!(in_force.place, format!("environment, {}", setting.variable()));
        assert_ne!(format!("{config:?}"), before, "{}", setting.name());
    }
}
