//! The configuration, with the real program.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rowmill::config::{SETTINGS, SettingDefault};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::target;

/// Never to be seen in any output.
const SECRET: &str = "hunter2";

struct Said {
    status: i32,
    stdout: String,
    stderr: String,
}

/// `rowmill config …`, with no variables of ours but these. Whatever it says, it never says the secret.
fn config(directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = Command::new(target().join("release/rowmill"));
    command.current_dir(directory).arg("config").args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ROWMILL_")) {
        command.env_remove(name);
    }
    let output = command.env("ROWMILL_LOG", "trace").envs(variables.iter().copied()).output().unwrap();
    let said = Said {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!said.stdout.contains(SECRET) && !said.stderr.contains(SECRET), "a secret was told:\n{}\n{}", said.stdout, said.stderr);
    said
}

/// A setting's value, and where it comes from.
fn in_force(directory: &Path, variables: &[(&str, &str)], arguments: &[&str], section: &str, key: &str) -> (Value, String) {
    let said = config(directory, variables, &[&["--json"], arguments].concat());
    assert_eq!(said.status, 0, "{}", said.stderr);
    let all: Value = serde_json::from_str(&said.stdout).unwrap();
    (all[section][key]["value"].clone(), all[section][key]["from"].as_str().unwrap().to_owned())
}

/// Why a configuration is refused.
fn refusal(directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> String {
    let said = config(directory, variables, arguments);
    assert_eq!((said.status, said.stdout.as_str()), (2, ""), "{}", said.stderr);
    said.stderr
}

fn with_file(text: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("rowmill.toml"), text).unwrap();
    directory
}

#[test]
fn flags_come_before_the_environment_before_the_file_before_defaults() {
    let directory = with_file("[worker]\nslots = 3\nheartbeat = \"3s\"\nlease_rows_max = 30\n");
    let variables = [("ROWMILL_WORKER_SLOTS", "4"), ("ROWMILL_WORKER_HEARTBEAT", "4s")];
    let see = |key| in_force(directory.path(), &variables, &["--set", "worker.slots=5"], "worker", key);
    assert_eq!(see("slots"), (5.into(), "flag --set".to_owned()));
    assert_eq!(see("heartbeat"), ("4s".into(), "environment, ROWMILL_WORKER_HEARTBEAT".to_owned()));
    assert_eq!(see("lease_rows_max"), (30.into(), "rowmill.toml, line 4".to_owned()));
    assert_eq!(see("lease_target"), ("250ms".into(), "default".to_owned()));
}

#[test]
fn the_file_is_that_of_the_flag_or_of_the_variable_or_the_one_that_is_there() {
    let directory = with_file("[worker]\nslots = 1\n");
    fs::write(directory.path().join("b.toml"), "worker.slots = 2").unwrap();
    fs::write(directory.path().join("c.toml"), "[worker]\nslots = 3").unwrap();
    let variables = [("ROWMILL_CONFIG", "b.toml")];
    let slots = |variables, arguments: &[&str]| in_force(directory.path(), variables, arguments, "worker", "slots").0;
    assert_eq!(slots(&[], &[]), 1);
    assert_eq!(slots(&variables, &[]), 2);
    assert_eq!(slots(&variables, &["--config", "c.toml"]), 3);
    let missing = refusal(directory.path(), &variables, &["--config", "d.toml"]);
    assert!(missing.contains("cannot read the configuration file d.toml"), "{missing}");
}

#[test]
fn what_is_no_setting_is_refused_wherever_it_stands() {
    let empty = TempDir::new().unwrap();
    let file = |text| refusal(with_file(text).path(), &[], &[]);
    assert_eq!(
        file("[store]\n\nurll = \"x\"\n"),
        "rowmill: store.urll (rowmill.toml, line 3) is no setting; the nearest one is store.url (`rowmill config` shows all)\n"
    );
    assert!(file("[stor]\nurl = \"x\"").contains("stor.url (rowmill.toml, line 2) is no setting; the nearest one is store.url"));
    assert!(file("[nothing]\n").contains("nothing (rowmill.toml, line 1) is no setting"));
    assert!(file("slots = 3\n").contains("slots (rowmill.toml, line 1) is no setting; the nearest one is worker.slots"));
    assert!(file("store = 3\n").contains("store (rowmill.toml, line 1) should be a section"));
    assert!(refusal(empty.path(), &[("ROWMILL_WORKERS", "3")], &[]).contains("ROWMILL_WORKERS (environment) is no setting"));
    assert!(
        refusal(empty.path(), &[], &["--set", "limits.fule=3"]).contains("limits.fule (flag --set) is no setting; the nearest one is limits.fuel")
    );
    assert_eq!(config(empty.path(), &[("ROWMILL_TEST_X", "1"), ("ROWMILL_CACHE_DIR", "/x")], &[]).status, 0);
}

#[test]
fn a_wrong_value_is_refused_with_its_place() {
    let empty = TempDir::new().unwrap();
    let file = |text| refusal(with_file(text).path(), &[], &[]);
    assert_eq!(
        file("[worker]\nslots = 0\n"),
        "rowmill: worker.slots (rowmill.toml, line 2) cannot be used: it should be between 1 and 1000, not 0\n"
    );
    assert!(file("[worker]\nslots = [1]\n").contains("it should be 1 to 1000"));
    assert!(file("[worker]\nslots = 1.5\n").contains("it should be a whole number"));
    assert!(file("[limits]\nmemory = \"1GiB\"\n").contains("it should be between 64KiB and 256MiB, not 1GiB"));
    assert!(file("[limits]\ntimeout = 5\n").contains("a time looks like 500ms, 5s, 2m, 1h30m or 90d"));
    assert!(file("[store]\nconnections = \n").contains("rowmill.toml is not valid TOML: at line 2"));
    let odd = refusal(empty.path(), &[("ROWMILL_STORE_POOLER", "session")], &[]);
    assert!(odd.contains("store.pooler (environment, ROWMILL_STORE_POOLER) cannot be used: it should be none or transaction"), "{odd}");
}

#[test]
fn secrets_are_taken_from_files_and_never_told() {
    let directory = TempDir::new().unwrap();
    let secret_file = directory.path().join("url");
    fs::write(&secret_file, format!("  postgres://me:{SECRET}@db/jobs\n")).unwrap();
    fs::set_permissions(&secret_file, PermissionsExt::from_mode(0o600)).unwrap();
    let by_file = ["--set", "store.url_file=url"];
    let shown = in_force(directory.path(), &[], &by_file, "store", "url");
    assert_eq!(shown, ("postgres://me:***@db/jobs".into(), "the file named by store.url_file".to_owned()));
    assert!(!config(directory.path(), &[], &by_file).stderr.contains("can be read by every user"));
    fs::set_permissions(&secret_file, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(config(directory.path(), &[], &by_file).stderr.contains("holds a secret and can be read by every user"));

    let url = format!("sqlite:{SECRET}");
    let both = refusal(directory.path(), &[("ROWMILL_STORE_URL", &url)], &by_file);
    assert!(both.contains("store.url (environment, ROWMILL_STORE_URL) and store.url_file (flag --set) say the same thing"), "{both}");
    fs::write(&secret_file, format!("psotgres://me:{SECRET}@db")).unwrap();
    assert!(refusal(directory.path(), &[], &by_file).contains("what url holds is no store.url"));
    fs::write(&secret_file, " \n").unwrap();
    assert!(refusal(directory.path(), &[], &by_file).contains("url is empty"));
    assert!(refusal(directory.path(), &[], &["--set", "store.url_file=none"]).contains("cannot read none"));
}

#[test]
fn no_way_of_giving_a_secret_makes_it_visible() {
    let text = format!(
        "[store]\nurl = \"postgres://me:{SECRET}@db/jobs?password={SECRET}\"\n[redis]\nurl = \"redis://:{SECRET}@cache\"\n\
         [objects]\nurl = \"s3://bucket\"\naccess_key_id = \"{SECRET}\"\nsecret_access_key = \"{SECRET}\"\n"
    );
    let directory = with_file(&text);
    // `config` looks through all that is said.
    for arguments in [&[][..], &["--json"]] {
        let said = config(directory.path(), &[], arguments);
        assert_eq!(said.status, 0, "{}", said.stderr);
        assert!(said.stdout.contains("postgres://me:***@db/jobs?password=***"), "{}", said.stdout);
    }
    let key = format!("objects.secret_access_key={SECRET}");
    assert_eq!(config(directory.path(), &[("ROWMILL_OBJECTS_ACCESS_KEY_ID", SECRET)], &["--set", &key]).status, 0);
    // Mistakes, each near a secret.
    for text in [
        format!("[store]\nurl = \"postgres://me:{SECRET}@db\n"),
        format!("[store]\nurl = postgres://me:{SECRET}@db\n"),
        format!("[store]\nurl = \"psotgres://me:{SECRET}@db\"\n"),
        format!("[redis]\nurl = \"http://me:{SECRET}@cache\"\n"),
        format!("[redis]\npassword = \"{SECRET}\"\n"),
        format!("[objects]\nurl = \"s3://key:{SECRET}@bucket\"\n"),
        format!("[objects]\nendpoint = \"https://key:{SECRET}@host\"\n"),
        format!("[objects]\nsecret_access_key = [\"{SECRET}\"]\n"),
        format!("objects = \"{SECRET}\"\n"),
    ] {
        refusal(with_file(&text).path(), &[], &[]);
    }
    for set in [format!("postgres://me:{SECRET}@db"), format!("store.url=me:{SECRET}@db"), format!("store.urll={SECRET}"), format!("={SECRET}")] {
        refusal(directory.path(), &[], &["--set", &set]);
    }
    refusal(directory.path(), &[("ROWMILL_STORE_PASSWORD", SECRET)], &[]);
}

#[test]
fn what_is_shown_can_be_used_as_a_file() {
    let directory = with_file("[limits]\nlog = 1000\nfuel = 5_000\n[redis]\nurl = \"redis://cache\"\n");
    let first = config(directory.path(), &[], &[]);
    fs::write(directory.path().join("again.toml"), &first.stdout).unwrap();
    let again = config(directory.path(), &[], &["--config", "again.toml"]);
    assert_eq!(again.status, 0, "{}", again.stderr);
    // The name of the worker holds the pid, and was given the second time.
    let values = |text: &str| text.lines().filter_map(|line| line.split_once("  #")).map(|(value, _)| value.to_owned()).collect::<Vec<_>>();
    assert_eq!(values(&first.stdout), values(&again.stdout));
    assert!(first.stdout.contains("log = \"1000B\"  # rowmill.toml, line 2"), "{}", first.stdout);
}

/// The documentation's table holds every setting with its default and bounds, and no other.
#[test]
fn the_documentation_lists_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = fs::read_to_string(path).unwrap();
    let row_of = |line: &str| line.starts_with("| `").then(|| (line.split('`').nth(1).unwrap().to_owned(), line.to_owned()));
    let documented: BTreeMap<String, String> = text.lines().filter_map(row_of).collect();
    let expected: BTreeMap<String, String> = SETTINGS
        .iter()
        .map(|setting| {
            let default = match setting.default {
                SettingDefault::Unset => String::new(),
                SettingDefault::Value(text) => format!("`{text}`"),
                SettingDefault::Machine { says, .. } | SettingDefault::Derived(says) => says.to_owned(),
            };
            (setting.name(), format!("| `{}` | {default} | {} | {} |", setting.name(), setting.kind.says(), setting.doc))
        })
        .collect();
    let all: Vec<&str> = expected.values().map(String::as_str).collect();
    assert_eq!(documented, expected, "docs/configuration.md should hold these rows:\n{}", all.join("\n"));
}
