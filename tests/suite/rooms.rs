//! The architecture as a test: which room of the runtime knows what (ARCHITECTURE.md says why). A room is a directory or file
//! directly under `runtime/src`. Comments are not read; tests inside the rooms are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

mod source;

use source::Source;

enum Rule {
    /// A crate that one room alone knows.
    CrateOnlyIn(&'static str, &'static str),
    /// A crate that these rooms know.
    CrateOnlyInThese(&'static str, &'static [&'static str]),
    /// Of all our rooms, this one knows only itself and these.
    KnowsOnly(&'static str, &'static [&'static str]),
    /// This room never knows that one.
    NeverKnows(&'static str, &'static str),
    /// Strings with SQL stand in these rooms alone.
    SqlOnlyIn(&'static [&'static str]),
}

use Rule::{CrateOnlyIn, CrateOnlyInThese, KnowsOnly, NeverKnows, SqlOnlyIn};

const RULES: &[Rule] = &[
    // The store's own database, and those that guests may ask, which are others.
    CrateOnlyInThese("sqlx", &["store", "grants"]),
    SqlOnlyIn(&["store", "grants"]),
    CrateOnlyIn("wasmtime", "sandbox"),
    CrateOnlyIn("wasmtime_wasi", "sandbox"),
    CrateOnlyIn("wasmtime_wasi_http", "sandbox"),
    CrateOnlyIn("wit_component", "sandbox"),
    CrateOnlyIn("wit_parser", "sandbox"),
    CrateOnlyIn("wasmparser", "sandbox"),
    CrateOnlyIn("blake3", "sandbox"),
    CrateOnlyIn("object_store", "blobs"),
    // The status of batches, and what apps keep by keys: each speaks to Redis in its own words.
    CrateOnlyInThese("redis", &["status", "grants"]),
    CrateOnlyIn("hyper", "grants"),
    CrateOnlyIn("hyper_util", "grants"),
    CrateOnlyIn("rustls", "grants"),
    CrateOnlyIn("tokio_rustls", "grants"),
    CrateOnlyIn("rustls_native_certs", "grants"),
    CrateOnlyIn("figment", "config"),
    CrateOnlyIn("croner", "schedule"),
    KnowsOnly("model", &[]),
    KnowsOnly("files", &[]),
    KnowsOnly("config", &["model"]),
    KnowsOnly("sandbox", &["files", "model"]),
    // What guests may reach is made here, to the sandbox's measure.
    KnowsOnly("grants", &["blobs", "model", "sandbox"]),
    KnowsOnly("store", &["files", "model"]),
    KnowsOnly("blobs", &["model"]),
    KnowsOnly("intake", &["model"]),
    KnowsOnly("status", &["model"]),
    // The worker is claim, run, record and summarise. It does not know who asked for the work,
    KnowsOnly("worker", &["blobs", "grants", "model", "registry", "sandbox", "status", "store"]),
    // Who ticks only submits.
    KnowsOnly("schedule", &["model", "store"]),
    // Who prunes only removes.
    KnowsOnly("prune", &["blobs", "model", "status", "store"]),
    KnowsOnly("export", &["blobs", "files", "intake", "model", "store"]),
    KnowsOnly("jobs", &["blobs", "export", "model", "prune", "registry", "sandbox", "schedule", "status", "store", "worker"]),
    NeverKnows("jobs", "worker::claim"),
    KnowsOnly("watch", &["files", "intake", "jobs", "model", "sandbox", "store"]),
    // and who asks reads through the store, never through the worker. (The command line starts one.)
    // Nobody reads the configuration but the command line: the others are given what they need.
    NeverKnows("api", "config"),
    NeverKnows("dashboard", "config"),
    NeverKnows("registry", "config"),
    NeverKnows("api", "worker"),
    NeverKnows("dashboard", "worker"),
    NeverKnows("cli", "worker::claim"),
];

/// Rooms that have rules before they have code.
const PLANNED: &[&str] = &["api", "dashboard"];

#[test]
fn every_room_keeps_to_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/src");
    let files = rust_files(&root);
    assert!(files.len() > 10, "only {} files under {}: is it the right place?", files.len(), root.display());
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        found.extend(violations(file.strip_prefix(&root).unwrap(), &text));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// A rule about a room that was renamed would hold for nothing.
#[test]
fn every_room_with_a_rule_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/src");
    for rule in RULES {
        let rooms = match *rule {
            CrateOnlyIn(_, home) => vec![home],
            CrateOnlyInThese(_, homes) | SqlOnlyIn(homes) => homes.to_vec(),
            KnowsOnly(here, others) => [&[here], others].concat(),
            NeverKnows(here, other) => vec![here, other],
        };
        for room in rooms {
            let place = root.join(room.replace("::", "/"));
            let exists = place.is_dir() || place.with_extension("rs").is_file();
            assert!(exists != PLANNED.contains(&room), "{room} has a rule: it should be {} or, until it exists, in PLANNED", place.display());
        }
    }
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Each broken rule as `file:line: what, and the rule`. `file` is relative to `runtime/src`.
fn violations(file: &Path, text: &str) -> Vec<String> {
    let modules = module_path(file);
    let room = modules.first().map_or("lib", String::as_str);
    let source = Source::read(text, &modules);
    let mut found = BTreeSet::new();
    for rule in RULES {
        for (line, path) in &source.paths {
            if let Some(complaint) = rule.broken_by(room, path) {
                found.insert((*line, format!("`{}`: {complaint}", path.join("::"))));
            }
        }
        for (line, text) in &source.strings {
            if let SqlOnlyIn(homes) = rule
                && !homes.contains(&room)
                && looks_like_sql(text)
            {
                found.insert((*line, format!("{text:?}: SQL stands only in {}", homes.join(" and "))));
            }
        }
    }
    found.into_iter().map(|(line, complaint)| format!("runtime/src/{}:{line}: {complaint}", file.display())).collect()
}

impl Rule {
    /// What is wrong with `path` in `room`. A path into our own crate begins with `crate`; `crate::*` is a path to every room.
    fn broken_by(&self, room: &str, path: &[String]) -> Option<String> {
        let ours = if path[0] == "crate" { &path[1..] } else { &[] };
        match *self {
            CrateOnlyIn(name, home) => (path[0] == name && room != home).then(|| format!("only {home} knows {name}")),
            CrateOnlyInThese(name, homes) => (path[0] == name && !homes.contains(&room)).then(|| format!("only {} know {name}", homes.join(" and "))),
            KnowsOnly(here, others) => {
                let other = ours.first().filter(|other| room == here && *other != here && !others.contains(&other.as_str()))?;
                let known = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
                Some(format!("of our other rooms {here} knows {known}, not {other}"))
            }
            NeverKnows(here, other) => {
                let known = room == here && (ours.join("::") + "::").starts_with(&format!("{other}::"));
                (known || room == here && ours == ["*"]).then(|| format!("{here} never knows {other}"))
            }
            SqlOnlyIn(_) => None,
        }
    }
}

/// `store/sqlite/rows.rs` is `[store, sqlite, rows]`; `lib.rs` is the crate itself.
fn module_path(file: &Path) -> Vec<String> {
    let mut modules: Vec<String> = file.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if modules.last().is_some_and(|last| last == "mod") || modules == ["lib"] || modules == ["main"] {
        modules.pop();
    }
    modules
}

/// Our SQL has its keywords in capitals, which prose has not.
fn looks_like_sql(text: &str) -> bool {
    let text = text.replace("\\n", " ");
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let has = |first: &str, then: &str| words.iter().position(|word| *word == first).is_some_and(|at| words[at..].contains(&then));
    let pair = |first: &str, second: &str| words.windows(2).any(|two| two == [first, second]);
    has("SELECT", "FROM") || has("UPDATE", "SET") || pair("INSERT", "INTO") || pair("DELETE", "FROM")
}

/// One planted violation of each kind and shape, and its neighbours that are none.
#[test]
fn a_planted_violation_is_found() {
    let broken = [
        ("api/rows.rs", "use sqlx::Row;"),
        ("api/rows.rs", "use {serde::Serialize, sqlx};"),
        ("api/rows.rs", "extern crate sqlx;"),
        ("api/rows.rs", "#[derive(sqlx::FromRow)] struct A;"),
        ("api/rows.rs", r##"let q = r#"SELECT id FROM "batches""#;"##),
        ("api/rows.rs", "let q = \"\n  INSERT INTO batches\";"),
        ("worker/record.rs", "const Q: &str = \"UPDATE leases SET token = ?\";"),
        ("worker/record.rs", "const Q: &str = \"DELETE FROM leases\";"),
        ("worker/mod.rs", "fn f() -> ::wasmtime::Result<()> { }"),
        ("worker/run.rs", "type A = Box<dyn object_store::ObjectStore>;"),
        ("model/batch.rs", "use crate::store::Store;"),
        ("model/batch.rs", "use super::super::store;"),
        ("model/batch.rs", "use crate::*;"),
        ("sandbox/mod.rs", "pub(crate) use crate::{model::Batch, store};"),
        ("sandbox/mod.rs", "use super::registry;"),
        ("store/sqlite/mod.rs", "mod tests { use super::super::super::api; }"),
        ("cli/run.rs", "let c = 'a'; crate::worker::claim::claim_rows(c);"),
        ("cli/run.rs", "use crate::{cli::{table, progress}, worker::{Worker, claim::{self}}};"),
        ("cli/run.rs", "use crate::*;"),
        ("export.rs", "use crate::config::Config;"),
        ("config/mod.rs", "use crate::store::Store;"),
        ("store/redis.rs", "use redis::Client;"),
        ("worker/summarise.rs", "let quoted = '\"'; use crate::cli;"),
        ("status.rs", "fn f() { vec![rowmill::store::rows()]; }"),
    ];
    for (file, text) in broken {
        let found = violations(Path::new(file), &format!("//! first line\n{text}\n"));
        assert_eq!(found.len(), 1, "{file}: {text}\n{found:?}");
        assert!(found[0].starts_with(&format!("runtime/src/{file}:2: ")), "{found:?}");
    }

    let kept = [
        ("store/sqlite/mod.rs", "use crate::model::Batch; use sqlx::{Row, query}; const Q: &str = \"SELECT 1 FROM a\";"),
        ("store/sqlite/mod.rs", "use super::{Store, StoreError}; mod tests { use super::*; use super::super::Store; }"),
        ("model/mod.rs", "mod batch; use self::batch::Batch; use crate::model::Clock; pub(crate) use batch::*; use super::model;"),
        ("api/rows.rs", "// use sqlx::Row;\n/* sqlx::query(\"SELECT a FROM b\") /* nested */ sqlx::x */ let a = self.sqlx; let b = r\"sqlx::Row\";"),
        ("api/rows.rs", "let text = \"select a file from the list, or an update will set it\"; fn f<'sqlx>(a: &'sqlx str) {}"),
        ("cli/mod.rs", "use crate::store::Store; use clap::claim; let claim = 1; crate::model::claim();"),
        ("sandbox/engine.rs", "use wasmtime::component::{Component, Linker}; use super::lift; use crate::sandbox::Grants;"),
        ("blobs/mod.rs", "mod object_store; use ::object_store::path::Path; "),
        ("cli/run.rs", "use crate::worker::{Worker, claims}; use crate::store::claim;"),
        ("lib.rs", "pub mod worker; pub use worker::Worker; pub use crate::store::Store;"),
    ];
    for (file, text) in kept {
        assert_eq!(violations(Path::new(file), text), Vec::<String>::new(), "{file}: {text}");
    }
}
