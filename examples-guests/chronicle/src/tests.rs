use super::deed::{Deed, Said};
use rowmill_guest::{Failure, Outcome};
use serde_json::json;

fn act(deed: serde_json::Value, attempt: u32) -> Result<Outcome<Said>, Failure> {
    serde_json::from_value::<Deed>(deed).unwrap().act(7, attempt)
}

#[test]
fn a_row_asks_to_be_run_again_until_its_attempt_and_then_does_what_it_was_told() {
    let deed = json!({"do": "succeed", "say": "x", "until_attempt": 2, "again_ms": 5, "pieces": [["a.txt", "x"]]});
    assert!(matches!(act(deed.clone(), 1), Err(Failure::Retry { .. })));
    assert_eq!(act(deed, 2), Ok(Outcome::success(Said { line: 7, said: "x".to_owned() }).piece("a.txt", "x")));
    assert_eq!(act(json!({"do": "abort-batch", "say": "x"}), 1), Err(Failure::abort_batch("x")));
}
