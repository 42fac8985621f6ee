//! The fuel of guests whose languages bring an allocator, and perhaps a collector, of their own.

use rowmill::sandbox::{Processor, Turns};

use super::turns::{run_rows, turns};
use crate::support::guests;
use crate::support::sessions::{limits, processor, session};

/// An example guest of each language, with inputs whose rows succeed and fail.
fn examples() -> [(&'static str, Vec<String>); 3] {
    let line = |quantity: u32, tax: u32| format!(r#"{{"quantity":{quantity},"price_cents":1250,"tax":{tax}}}"#);
    let invoice = |lines: u32| {
        let lines: Vec<String> = (0..lines).map(|at| line(1 + at % 9, if at % 3 == 0 { 7 } else { 19 })).collect();
        format!(r#"{{"invoice":"A-{}","lines":[{}]}}"#, lines.len(), lines.join(","))
    };
    // The large ones make the memory grow, and the collectors run.
    let mut invoices: Vec<String> = [1, 7, 500, 2, 499, 3].into_iter().map(invoice).collect();
    invoices.push(format!(r#"{{"invoice":"A-9","lines":[{}]}}"#, line(0, 20)));
    let transaction = |at: u32| {
        let memo = "rent ".repeat(usize::try_from(at * at).unwrap());
        format!(
            r#"{{"id":"T{at}","date":"2026-01-31","type":"transfer","account":"DE0123456789","to_account":"FR0123456789","amount":"{at}.5","currency":"EUR","memo":"{memo}"}}"#
        )
    };
    let mut transactions: Vec<String> = (1..7).map(transaction).collect();
    transactions.push("{}".to_owned());
    [("bank-transactions", transactions), ("invoice-totals-python", invoices.clone()), ("invoice-totals-javascript", invoices)]
}

/// A yield after every thousandth unit of fuel, and at every return from the host.
fn often() -> Turns {
    turns(1_000, 1)
}

/// The fuel of each row, of inputs in this order. Each input has the line of its place in `inputs`.
async fn fuel_alone(processor: &Processor, inputs: &[&str], turns: Turns) -> Vec<u64> {
    let session = session(processor, limits()).with_instance_per_row();
    run_rows(session, inputs, turns).await.0.into_iter().map(|(_, fuel)| fuel).collect()
}

/// With `isolation = "row"` nothing but the code, the batch and the row decides how much fuel the
/// row uses.
#[tokio::test]
async fn a_row_in_an_instance_of_its_own_costs_the_same_after_whatever_other_rows() {
    for (name, inputs) in examples() {
        let processor = processor(&guests::read(name));
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let expected = fuel_alone(&processor, &inputs, Turns::NEVER).await;
        assert!(expected.iter().all(|&fuel| fuel > 1_000), "{name}: {expected:?}");
        assert_eq!(fuel_alone(&processor, &inputs, Turns::default()).await, expected, "{name}");
        assert_eq!(fuel_alone(&processor, &inputs, often()).await, expected, "{name}");
        let reversed: Vec<&str> = inputs.iter().rev().copied().collect();
        let mut costs = fuel_alone(&processor, &reversed, Turns::default()).await;
        costs.reverse();
        assert_eq!(costs, expected, "{name}");
        // Cut into other leases, each with a session of its own.
        let mut cut = Vec::new();
        for lease in inputs.chunks(2) {
            cut.extend(fuel_alone(&processor, lease, Turns::default()).await);
        }
        assert_eq!(cut, expected, "{name}");
    }
}

/// In one instance the sum over the rows is that of a run without any yield, while memories grow
/// and collectors run.
#[tokio::test]
async fn the_sum_over_the_rows_of_an_instance_is_that_of_a_run_that_never_yields() {
    for (name, inputs) in examples() {
        let processor = processor(&guests::read(name));
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).cycle().take(60).collect();
        let (expected, _) = run_rows(session(&processor, limits()), &inputs, Turns::NEVER).await;
        let sum: u64 = expected.iter().map(|(_, fuel)| fuel).sum();
        for turns in [Turns::default(), often()] {
            let (accounts, yields) = run_rows(session(&processor, limits()), &inputs, turns).await;
            assert_eq!(accounts, expected, "{name} with {turns:?}");
            assert_eq!(accounts.iter().map(|(_, fuel)| fuel).sum::<u64>(), sum, "{name}");
            assert!(turns == Turns::default() || yields > 0, "{name}");
        }
    }
}
