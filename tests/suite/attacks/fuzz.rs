//! Arbitrary bytes, a fixed number of them: `make fuzz` goes on from there.

use rowmill_tests::fuzz::{self, host, intake, outcome, upload};

use super::count_panics;

/// What is there to begin with, and as much by chance.
fn feed(seeds: &[Vec<u8>], check: fn(&[u8])) {
    let panics = count_panics();
    let more = (1_000..).take(seeds.len()).map(|seed| fuzz::bytes(seed, 50 + usize::try_from(seed).unwrap()));
    for input in seeds.iter().cloned().chain(more) {
        check(&input);
    }
    let panics = panics.lock().unwrap();
    assert!(panics.is_empty(), "the host panicked: {panics:?}");
}

#[test]
fn fuzz_1_whatever_is_uploaded_is_loaded_or_refused_with_a_sentence() {
    feed(&upload::seeds(), upload::check);
}

#[test]
fn fuzz_1_whatever_a_guest_calls_ends_its_row_and_touches_nothing_else() {
    feed(&host::seeds(), host::check);
}

#[test]
fn fuzz_1_whatever_is_recorded_is_read_again() {
    feed(&outcome::seeds(), outcome::check);
}

#[test]
fn fuzz_1_whatever_a_file_holds_its_rows_are_json() {
    feed(&intake::seeds(), intake::check);
}
