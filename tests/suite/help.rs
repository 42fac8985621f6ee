//! What the program says of itself: a change of it is seen in the review.

use std::process::Command;

use crate::support::target;

fn said(arguments: &[&str]) -> String {
    let output = Command::new(target().join("release/rowmill")).args(arguments).env_remove("COLUMNS").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    format!("status {}\n{}", output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn the_program_explains_itself() {
    insta::assert_snapshot!("rowmill_help", said(&["--help"]));
}

#[test]
fn run_explains_its_options() {
    insta::assert_snapshot!("rowmill_run_help", said(&["run", "--help"]));
}

#[test]
fn config_explains_its_options() {
    insta::assert_snapshot!("rowmill_config_help", said(&["config", "--help"]));
}

#[test]
fn migrate_explains_its_options() {
    insta::assert_snapshot!("rowmill_migrate_help", said(&["migrate", "--help"]));
}

#[test]
fn bench_explains_its_options() {
    insta::assert_snapshot!("rowmill_bench_help", said(&["bench", "--help"]));
}

#[test]
fn a_wrong_command_line_is_told_what_is_wrong() {
    insta::assert_snapshot!("an_unknown_option", said(&["run", "--processor", "p.wasm", "--inptu", "rows.csv"]));
    insta::assert_snapshot!("a_wrong_memory", said(&["run", "--processor", "p.wasm", "--input", "rows.csv", "--memory", "1GiB"]));
    insta::assert_snapshot!("no_input", said(&["run", "--processor", "p.wasm"]));
}
