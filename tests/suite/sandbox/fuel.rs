//! Fuel: an exact and repeatable account of a row's work, and a limit that nothing escapes.

use std::time::Duration;

use rowmill::model::{Ending, Limits};

use crate::support::guests;
use crate::support::sessions::{NO_DEADLINE, bare, limits, output, processor, run_in, run_one, sandbox, session};
use crate::support::wat::Wat;

const TRANSFER: &str = r#"{"id":"T1","date":"2026-01-31","type":"transfer","account":"DE0123456789","to_account":"FR0123456789","amount":"12.34","currency":"EUR","memo":"rent"}"#;
const PAYMENT: &str = r#"{"id":"T2","date":"2026-02-28","type":"payment","account":"DE0123456789","to_account":"","amount":"99.5","currency":"USD","memo":"a longer memo than the other"}"#;
const BAD: &str = r#"{"id":"","date":"2026-02-30","type":"gift","account":"?","amount":"-1","currency":"XXX"}"#;

#[tokio::test]
async fn the_same_row_costs_the_same_in_every_session_and_engine() {
    let wasm = guests::read("bank-transactions");
    let (first, second) = (processor(&wasm), sandbox().load(&wasm).unwrap());
    let cost = run_one(&first, limits(), TRANSFER).await.fuel;
    assert!((1_000..1_000_000).contains(&cost), "{cost}");
    for processor in [&first, &first, &second] {
        assert_eq!(run_one(processor, limits(), TRANSFER).await.fuel, cost);
    }
}

/// The guest's allocator has other free blocks after other rows, and then takes another way: some tens of units, less than 1 %. A row's fuel is exact for the
/// rows that its instance has run before it, and those depend on where leases begin. So results that were split into other leases differ by so much.
#[tokio::test]
async fn the_same_rows_in_the_same_order_cost_the_same_and_others_before_it_change_a_rows_cost_little() {
    let processor = processor(&guests::read("bank-transactions"));
    let costs = async |inputs: &[&str]| run_in(session(&processor, limits()), inputs).await.iter().map(|run| run.fuel).collect::<Vec<_>>();
    let order = [TRANSFER, PAYMENT, BAD, TRANSFER, TRANSFER, PAYMENT];
    let run = costs(&order).await;
    assert_eq!(costs(&order).await, run);
    let alone = costs(&[TRANSFER]).await[0];
    eprintln!("alone {alone}, among others {run:?}");
    for at in [0, 3, 4] {
        assert!(run[at].abs_diff(alone) * 100 < alone, "alone {alone}, among others {run:?}");
    }
}

#[tokio::test]
async fn cpu_4_a_row_succeeds_with_just_the_fuel_it_needs_and_never_with_less() {
    let processor = processor(&guests::read("bank-transactions"));
    let needs = run_one(&processor, limits(), TRANSFER).await.fuel;
    let with = async |fuel| run_one(&processor, Limits { fuel, ..limits() }, TRANSFER).await;
    for _ in 0..2 {
        let run = with(needs).await;
        assert!(matches!(run.ending, Ending::Succeeded(_)), "{:?}", run.ending);
        assert_eq!(run.fuel, needs);
        for limit in (needs - 100..needs).chain([needs / 2, needs / 3]) {
            let run = with(limit).await;
            assert_eq!(bare(run.ending), Ending::OutOfFuel { used: limit, limit, frames: vec![] }, "{needs} are needed");
            assert_eq!(run.fuel, limit);
        }
    }
}

/// Counts to ten times its line: each turn is a check of the fuel.
fn counter() -> Wat {
    Wat::batch().body(
        "process-row",
        "(loop $turn (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $turn (i32.lt_u (local.get $i) (i32.mul (local.get $line) (i32.const 10)))))",
    )
}

/// The sandbox hands fuel out in slices, at the ends of which a guest yields.
#[tokio::test]
async fn what_a_row_costs_does_not_depend_on_its_limit() {
    let processor = processor(&counter().module());
    let cost = async |fuel| {
        let mut session = session(&processor, Limits { fuel, ..limits() });
        session.run_row(&crate::support::sessions::row(1_000_000, "{}")).await
    };
    let needs = cost(u64::MAX / 100).await.fuel;
    assert!(needs > 50_000_000, "{needs}");
    for limit in [needs, needs + 1, needs * 2, 1_000_000_000_000] {
        let run = cost(limit).await;
        assert_eq!((output(&run), run.fuel), ("{}", needs));
    }
    assert_eq!(bare(cost(needs - 1).await.ending), Ending::OutOfFuel { used: needs - 1, limit: needs - 1, frames: vec![] });
}

/// Fills 32 MiB again and again. One such instruction takes some milliseconds, so it must cost by the byte.
fn filler() -> Wat {
    Wat::batch().pages(513).body("process-row", "(loop $again (memory.fill (i32.const 65536) (i32.const 0) (i32.const 33554432)) (br $again))")
}

#[tokio::test]
async fn bulk_instructions_cost_by_the_byte() {
    let processor = processor(&filler().module());
    let fuel = 10 * (32 << 20);
    let run = run_one(&processor, Limits { fuel, ..limits() }, "{}").await;
    assert_eq!(bare(run.ending), Ending::OutOfFuel { used: fuel, limit: fuel, frames: vec![] });
    let timeout = Duration::from_millis(300);
    let run = run_one(&processor, Limits { fuel: u64::MAX / 100, timeout, ..limits() }, "{}").await;
    assert_eq!(bare(run.ending), Ending::Deadline { limit: timeout, frames: vec![] });
    // Three hundred milliseconds fill a few gigabytes: a handful of turns would be free, a thousand would not.
    assert!(run.fuel > 32 << 20, "{}", run.fuel);
}

#[tokio::test]
async fn the_largest_limits_do_not_overflow() {
    let limits = Limits { fuel: u64::MAX, timeout: NO_DEADLINE * 24, memory_bytes: u64::MAX, ..limits() };
    let processor = processor(&counter().module());
    assert_eq!(output(&run_one(&processor, limits, "{}").await), "{}");
}

#[tokio::test]
async fn a_limit_of_one_unit_ends_every_row_and_the_start_first() {
    let processor = processor(&guests::read("bank-transactions"));
    let run = run_one(&processor, Limits { fuel: 1, ..limits() }, TRANSFER).await;
    let reason = crate::support::sessions::cannot_start(&run);
    assert!(reason.contains("ran out of fuel: used 10, the limit is 10"), "{reason}");
}
