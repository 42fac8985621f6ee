//! What is refused: files, and configurations.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::{Site, gzip, names};
use crate::service::{Installation, transactions};
use crate::support::guests;

/// Some hundred kilobytes that become 80 MiB of good rows.
fn bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(b"".to_vec(), Compression::best());
    encoder.write_all(b"id,memo\n").unwrap();
    let row = format!("1,{}\n", "a".repeat(100 << 10));
    for _ in 0..800 {
        encoder.write_all(row.as_bytes()).unwrap();
    }
    encoder.finish().unwrap()
}

fn refused_files_stand_in_failed(site: Installation) {
    let site = Site::new(site, "50ms");
    let header = "id,date,type,account,to_account,amount,currency,memo\n";
    let trailer = |amount: &str| format!("{header}1,2026-01-31,deposit,A,,1.50,EUR,\n2,2026-01-31,deposit,A,,2.00,EUR,\n2,,total,,,{amount},,\n");
    let compressed = gzip(&transactions(1, 1_000));
    site.put("unknown.csv", transactions(1, 2));
    site.put("odd-1.txt", transactions(1, 2));
    site.put("nobody-1.csv", transactions(1, 2));
    site.put("t-binary.csv", "id,amount\n1,\0\n");
    site.put("t-cut.csv.gz", &compressed[..compressed.len() / 2]);
    site.put("t-plain.csv.gz", transactions(1, 2));
    site.put("t-bomb.csv.gz", bomb());
    site.put("t-late.csv", [transactions(1, 30_000).as_bytes(), b"\xff\n"].concat());
    site.put("checked-1.csv", trailer("3.60"));
    site.put("checked-2.csv", header);
    let reports = site.once();
    let reason = |name: &str| {
        let report = reports.iter().find(|report| report["file"] == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((&report["outcome"], &report["batch"]), (&"failed".into(), &Value::Null), "{report}");
        let beside: Value = serde_json::from_slice(&fs::read(site.place("failed").join(format!("{name}.reasons.json"))).unwrap()).unwrap();
        assert_eq!((&beside["file"], &beside["reasons"]), (&name.into(), &report["reasons"]));
        assert!(site.place("failed").join(name).is_file());
        (report["reasons"][0]["code"].as_str().unwrap().to_owned(), report["reasons"][0]["text"].as_str().unwrap().to_owned())
    };
    for (name, code, text) in [
        ("unknown.csv", "unknown_file", "no type of this directory has a pattern for its name"),
        ("odd-1.txt", "unknown_file", "its name does not tell how it holds its rows"),
        ("nobody-1.csv", "not_submitted", "app \"nobody\" has no batch processor that serves the operation \"validate\""),
        ("t-binary.csv", "bad_file", "it is not text: byte 13, in line 2, is NUL"),
        ("t-cut.csv.gz", "bad_file", "its compressed data ends too early: it was cut off"),
        ("t-plain.csv.gz", "bad_file", "it is not compressed with gzip, though it is called so"),
        ("t-bomb.csv.gz", "bad_file", "its compressed data grows to more than 200 times its size"),
        ("t-late.csv", "bad_file", "it is not UTF-8: line 30002"),
        ("checked-1.csv", "total-differs", "total-differs (amount): 3.60, 3.50"),
        ("checked-2.csv", "bad_file", "it has a header and no record"),
    ] {
        let (found_code, found_text) = reason(name);
        assert!(found_code == code && found_text.contains(text), "{name}: {found_code}: {found_text}");
    }
    assert_eq!(reports.len(), 10);
    assert_eq!((names(&site.place("incoming")), names(&site.place("done")), names(&site.place(".work"))), (vec![], vec![], vec![]));
    if site.site.database.is_some() {
        assert_eq!(site.count("SELECT count(*) FROM rowmill.batches"), 0);
        assert_eq!(site.count("SELECT count(*) FROM rowmill.rows"), 0);
        assert_eq!(site.count("SELECT count(*) FROM rowmill.batch_files"), 0);
    } else {
        let kept = site.site.directory.path().join("rowmill-objects/files");
        assert!(!kept.exists() || names(&kept).is_empty(), "what was refused is kept");
    }

    // Corrected, it is taken.
    site.put("checked-1.csv", trailer("3.5"));
    let report = site.once().remove(0);
    assert_eq!((&report["outcome"], &report["rows"]), (&"submitted".into(), &2.into()), "{report}");
}

#[test]
fn refused_files_stand_in_failed_with_their_reasons_over_postgresql() {
    refused_files_stand_in_failed(Installation::shared());
}

#[test]
fn refused_files_stand_in_failed_with_their_reasons_over_sqlite() {
    refused_files_stand_in_failed(Installation::embedded());
}

#[test]
fn what_cannot_be_watched_gets_a_sentence_and_status_2() {
    let site = Installation::embedded();
    let file = |text: &str| fs::write(site.directory.path().join("watch.toml"), text).unwrap();
    let refused = |sentence: &str| {
        let (status, out, err) = site.run(&["watch", "--types", "watch.toml", "--once"]);
        assert!(status == 2 && out.is_empty() && err.contains(sentence), "{sentence}: {status} {out} {err}");
    };
    let (status, _, err) = site.run(&["watch"]);
    assert!(status == 2 && err.contains("give --types FILE, or set watch.file"), "{err}");
    refused("cannot read the configuration file watch.toml");
    let watch = |more: &str| format!("[[watch]]\ndirectory = \"box\"\n[[watch.type]]\npattern = \"*\"\napp = \"a\"\nop = \"o\"\n{more}\n");
    file(&watch("formt = \"csv\""));
    refused("watch[0].type[0].formt: unknown field");
    file(&watch("format = \"xml\""));
    refused("format is csv, csv.gz, ndjson or ndjson.gz, not \"xml\"");
    file(&watch("context = { x = \"{nam}\" }"));
    refused("\"{nam}\" is nothing that a context can name");
    file(&watch("check = \"none.wasm\""));
    refused("cannot read the checker none.wasm");
    file(&watch(&format!("check = {:?}", guests::path("bank-transactions").to_str().unwrap())));
    refused("this component is no checker of files");
    file(&watch("").replace("\"*\"", "\"a[\""));
    refused("\"a[\" is no pattern");
    file(&format!("{0}\n{0}", watch("")));
    refused("is watched twice");
}

/// Of two files whose names begin alike and are too long for an ending, each has its reasons; and
/// no reasons replace a file that was called like them.
#[test]
fn each_refused_file_has_its_own_reasons() {
    let site = Site::new(Installation::embedded(), "50ms");
    let long = "x".repeat(248);
    let files = [format!("{long}-1.csv"), format!("{long}-2.csv"), "a.csv".to_owned()];
    for name in &files {
        site.put(name, transactions(1, 2));
    }
    fs::write(site.place("failed").join("a.csv.reasons.json"), "a file that came with this name").unwrap();
    assert_eq!(site.once().len(), 3);
    let mut seen = Vec::new();
    for entry in fs::read_dir(site.place("failed")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".reasons.json") && name != "a.csv.reasons.json" {
            let reasons: Value = serde_json::from_slice(&fs::read(site.place("failed").join(&name)).unwrap()).unwrap();
            seen.push(reasons["file"].as_str().unwrap().to_owned());
        }
    }
    seen.sort_unstable();
    let mut wanted = files.to_vec();
    wanted.sort_unstable();
    assert_eq!(seen, wanted);
    assert_eq!(fs::read_to_string(site.place("failed").join("a.csv.reasons.json")).unwrap(), "a file that came with this name");
    // The same file again: its reasons take the place of those before.
    site.put("b.csv", "x");
    site.once();
    fs::remove_file(site.place("failed").join("b.csv")).unwrap();
    site.put("b.csv", "y");
    site.once();
    assert_eq!(names(&site.place("failed")).iter().filter(|name| name.starts_with('b')).count(), 2);
}

/// As macOS sends them: a letter and its mark as two.
#[test]
fn a_decomposed_name_matches_the_composed_pattern() {
    let site = Installation::embedded();
    site.deploy("validate", "bank-transactions");
    let types = |pattern: &str, app: &str| format!("[[watch.type]]\npattern = \"{pattern}\"\napp = \"{app}\"\nop = \"validate\"\n");
    let text = format!("[[watch]]\ndirectory = \"box\"\nage = \"50ms\"\n{}{}", types("größe-[äöü]?.csv", "bank"), types("*.csv", "other"));
    fs::write(site.directory.path().join("watch.toml"), text).unwrap();
    let incoming = site.directory.path().join("box/incoming");
    fs::create_dir_all(&incoming).unwrap();
    for name in ["größe-ä1.csv", "gro\u{308}ße-a\u{308}2.csv", "größe-ö€.csv"] {
        fs::write(incoming.join(name), transactions(1, 2)).unwrap();
    }
    let reports = site.lines(&["watch", "--types", "watch.toml", "--once", "--json"]);
    assert_eq!(reports.len(), 3);
    for report in reports {
        assert_eq!(site.status(report["batch"].as_str().unwrap())["app"], "bank", "{report}");
    }
}

/// Nothing is made of a file of types that is refused.
#[test]
fn types_that_get_no_file_and_directories_like_patterns_are_refused() {
    let site = Installation::embedded();
    let refused = |directory: &str, patterns: &[&str]| {
        let mut text = format!("[[watch]]\ndirectory = \"{directory}\"\n");
        for pattern in patterns {
            text.push_str(&format!("[[watch.type]]\npattern = \"{pattern}\"\napp = \"a\"\nop = \"o\"\n"));
        }
        fs::write(site.directory.path().join("watch.toml"), text).unwrap();
        let (status, _, said) = site.run(&["watch", "--types", "watch.toml", "--once"]);
        assert_eq!(status, 2, "{said}");
        assert!(!site.directory.path().join(directory).exists(), "{directory}");
        said
    };
    for (pattern, part) in
        [("in/*.csv", "the name of a file has no /"), ("**", "write *"), ("/", "has no /"), ("", "it is empty"), (".x", "begin with a dot")]
    {
        assert!(refused("box", &[pattern]).contains(part), "{pattern}");
    }
    assert!(refused("box", &["*", "*.csv"]).contains("watch[0]: the type \"*.csv\" would never get a file: \"*\" stands before it"));
    assert!(refused("box", &["*.csv", "*.csv"]).contains("would never get a file"));
    assert!(refused("bo[xy]", &["*"]).contains("watch[0].directory: \"bo[xy]\" looks like a pattern"));
}
