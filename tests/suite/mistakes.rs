//! What a person is told of the mistakes of authors, and the table in the documentation.

use std::fs;
use std::path::Path;

use rowmill_tests::mistakes::{LANGUAGES, Language};

use crate::support::guests;
use crate::support::sessions::processor;

async fn check(language: Language) {
    let all = language.make_all(&processor(&guests::read(language.guest))).await.unwrap();
    let without: Vec<_> = all.iter().filter(|told| !told.has_place).collect();
    assert!(without.len() * 5 <= all.len(), "{} of {} have no place: {without:#?}", without.len(), all.len());
    for told in &all {
        for noise in ["RUST_BACKTRACE", "PyErr", "FromJs", "<unnamed>", "/home/", "/root/", "/rustc/", "rowmill.py", "rowmill.js"] {
            assert!(!told.text.contains(noise), "{told:?}");
        }
    }
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mistakes.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with(language.name)).unwrap();
    for told in &all {
        assert!(
            section.lines().any(|line| line.starts_with(&told.row_head())),
            "docs/mistakes.md differs in {told:?}: put the tables of `make mistakes` there"
        );
    }
    assert_eq!(section.lines().filter(|line| line.starts_with("| ")).count(), all.len() + 1, "{}", language.name);
}

#[tokio::test]
async fn at_most_a_fifth_of_the_mistakes_in_rust_has_no_place() {
    check(LANGUAGES[0]).await;
}

#[tokio::test]
async fn at_most_a_fifth_of_the_mistakes_in_python_has_no_place() {
    check(LANGUAGES[1]).await;
}

#[tokio::test]
async fn at_most_a_fifth_of_the_mistakes_in_javascript_has_no_place() {
    check(LANGUAGES[2]).await;
}
