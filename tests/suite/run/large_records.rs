//! The largest records of lists of failed rows, and the memory that they take.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};

use super::{directory_with, ended, message, results, rowmill};

const MIB: usize = 1 << 20;
/// The limit of a record of a list in CSV, as docs/limits-and-errors.md has it.
const RECORD_BYTES_MAX: usize = 80 * MIB;
/// For all that a run does with the record: reading, storing, running, listing.
const MEMORY_BYTES_MAX: usize = 4 * RECORD_BYTES_MAX;

fn quotes(bytes: usize) -> String {
    "\"\"".repeat(bytes / 2)
}

/// A record of this number of bytes, of which each part is as large as it can be.
fn record(bytes: usize) -> String {
    let fixed = format!("\"{}\",3,\"bad_row;{}\",\"{}\",", quotes(32 * MIB), quotes(8 * MIB - 16), quotes(32 * MIB));
    let reason = bytes - fixed.len();
    format!("{fixed}{}", "r".repeat(reason.min(4 * MIB))) + &" ".repeat(reason.saturating_sub(4 * MIB))
}

/// The peak of all programs that this test has waited for.
fn peak_bytes() -> usize {
    usize::try_from(getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss()).unwrap() * 1024
}

#[test]
fn the_largest_record_of_a_list_takes_a_small_multiple_of_its_size() {
    let header = "do,rowmill_line,rowmill_codes,rowmill_text,rowmill_reason\n";
    let list = format!("{header}{}\n", record(76 * MIB));
    let directory = directory_with("list.csv", list.as_bytes());
    let (status, said) = ended(rowmill(directory.path(), "misbehaving").args(["--input", "list.csv"]));
    assert_eq!(status, 1, "{said}");
    let peak = peak_bytes();
    println!("{} MiB", peak >> 20);
    assert!(peak < MEMORY_BYTES_MAX, "{} MiB", peak >> 20);
    let rows = results(directory.path());
    assert_eq!((rows[0]["line"].as_u64(), message(&rows[0]).0), (Some(3), "bad_row"));
    // The text comes out as it came in, and in again.
    let again = fs::read_to_string(directory.path().join("out/failed.csv")).unwrap();
    assert!(again.contains(&format!(",3,bad_row,\"{}\",", quotes(32 * MIB))));
    let directory = directory_with("list.csv", again.as_bytes());
    let (status, said) = ended(rowmill(directory.path(), "misbehaving").args(["--input", "list.csv"]));
    assert_eq!(status, 1, "{said}");
    let third = fs::read_to_string(directory.path().join("out/failed.csv")).unwrap();
    let reason = |list: &str| list.split_once("; the first reason: ").unwrap().1.to_owned();
    assert!(reason(&third) == reason(&again) && third.contains(&format!(",3,bad_row,\"{}\",", quotes(32 * MIB))));
}

#[test]
fn a_larger_record_of_a_list_is_refused() {
    let header = "do,rowmill_line,rowmill_codes,rowmill_text,rowmill_reason\n";
    for (bytes, said) in [(RECORD_BYTES_MAX, "rowmill_reason is larger than 4 MiB"), (RECORD_BYTES_MAX + 1, "is larger than 80 MiB")] {
        let directory = directory_with("list.csv", format!("{header}{}\n", record(bytes)).as_bytes());
        let (status, error) = ended(rowmill(directory.path(), "misbehaving").args(["--input", "list.csv"]));
        assert!(status == 2 && error.contains(said), "{error}");
    }
}

#[test]
fn the_largest_line_of_a_json_list_takes_a_small_multiple_of_its_size() {
    let list = format!("{{\"rowmill\":{{\"line\":3,\"reason\":\"{}\"}},\"text\":\"{}\"}}\n", "r".repeat(15 * MIB), "\\u0001".repeat(16 * MIB));
    let directory = directory_with("list.ndjson", list.as_bytes());
    let (status, said) = ended(rowmill(directory.path(), "misbehaving").args(["--input", "list.ndjson"]));
    assert_eq!(status, 1, "{said}");
    let peak = peak_bytes();
    println!("{} MiB", peak >> 20);
    assert!(peak < 4 * list.len(), "{} MiB", peak >> 20);
    let again = fs::read_to_string(directory.path().join("out/failed.ndjson")).unwrap();
    assert!(again.ends_with(&format!("\"text\":\"{}\"}}\n", "\\u0001".repeat(16 * MIB))));
}
