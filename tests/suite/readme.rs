//! The README's own processor, built and run as it says.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{ended, guests, target};

/// The first block of a language behind a heading.
fn block<'a>(text: &'a str, heading: &str, language: &str) -> &'a str {
    let behind = &text[text.find(heading).unwrap()..];
    let begin = behind.find(&format!("```{language}\n")).unwrap() + language.len() + 4;
    &behind[begin..begin + behind[begin..].find("```").unwrap()]
}

#[test]
fn the_processor_of_the_readme_is_built_and_run_in_its_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    // The commands name the clone as ../rowmill.
    std::os::unix::fs::symlink(&root, directory.path().join("rowmill")).unwrap();
    let crate_directory = directory.path().join("fees");
    let shell = |commands: &str, from: &Path| {
        let mut bash = Command::new("bash");
        bash.args(["-euc", commands]).current_dir(from).env("CARGO_TARGET_DIR", target().join("readme"));
        ended(bash.env("ROWMILL_CACHE_DIR", guests::cache()))
    };
    let heading = "## Your own processor in ten minutes";
    let (status, stderr) = shell(block(&readme, heading, "sh"), directory.path());
    assert_eq!(status, 0, "{stderr}");
    fs::write(crate_directory.join("src/lib.rs"), block(&readme, heading, "rust")).unwrap();
    // The lock file keeps the crate to the versions that this repository was built with.
    fs::copy(root.join("Cargo.lock"), crate_directory.join("Cargo.lock")).unwrap();
    let build_and_run = block(&readme, "Build it and run it", "sh");
    // Cargo was told to build elsewhere, to find what it built before.
    let commands = build_and_run
        .replace("target/wasm32", "$CARGO_TARGET_DIR/wasm32")
        .replace("../rowmill/target/release/rowmill", &target().join("release/rowmill").display().to_string());
    let (status, stderr) = shell(&commands, &crate_directory);
    assert_eq!(status, 1, "{stderr}");
    let read = |name: &str| fs::read_to_string(crate_directory.join("amounts.results").join(name)).unwrap();
    let promised = block(&readme, "It ends with status 1", "text");
    for line in read("failed.csv").lines() {
        assert!(promised.contains(line), "{line}");
    }
    assert!(read("results.ndjson").starts_with(r#"{"line":1,"status":"success","output":{"account":"A1","fee_cents":25},"#));
    assert_eq!(read("files/fees.csv"), "A1,25\n");
}
