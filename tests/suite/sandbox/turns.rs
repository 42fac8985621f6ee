//! A guest's yields, and the fuel that they leave as it is: to the unit, wherever in a row they
//! come.

use std::future::{self, Future};
use std::num::{NonZeroU32, NonZeroU64};
use std::pin::pin;
use std::time::Duration;

use rowmill::model::{Ending, Limits, RowRun};
use rowmill::sandbox::{CheckError, CheckSession, Sandbox, Session, Turns};
use rowmill_tests::random::Random;
use tempfile::TempDir;

use super::{check, programs};
use crate::support::sessions::{bare, limits, no_files, processor, row, session};
use crate::support::wat::Wat;

pub fn turns(fuel: u64, returns: u32) -> Turns {
    Turns { fuel: NonZeroU64::new(fuel).unwrap(), returns: NonZeroU32::new(returns).unwrap(), time: Duration::ZERO }
}

/// A yield at every return from the host, and fuel as it is by default.
fn at_every_return() -> Turns {
    Turns { fuel: Turns::default().fuel, ..turns(1, 1) }
}

/// How a row ended, and its fuel.
pub type Account = (Ending, u64);

/// Runs a row, and counts how often it was not ready.
async fn run_row(session: &mut Session, line: u32, input: &str) -> (RowRun, u32) {
    let row = row(line, input);
    let mut call = pin!(session.run_row(&row));
    let mut yields = 0;
    let run = future::poll_fn(|context| {
        let polled = call.as_mut().poll(context);
        yields += u32::from(polled.is_pending());
        polled
    });
    (run.await, yields)
}

/// The accounts of some rows in one instance, and how often they yielded together.
pub async fn run_rows(session: Session, inputs: &[&str], turns: Turns) -> (Vec<Account>, u32) {
    let mut session = session.with_turns(turns);
    let (mut accounts, mut yields) = (Vec::new(), 0);
    for (line, input) in (1..).zip(inputs) {
        let (run, yielded) = run_row(&mut session, line, input).await;
        accounts.push((bare(run.ending), run.fuel));
        yields += yielded;
    }
    session.close().await;
    (accounts, yields)
}

/// Two hundred multiplications and a growth by nothing, in some rounds: compiled code keeps the
/// count of its fuel in a register over the growth.
fn growing(wat: Wat, function: &'static str, rounds: u32) -> Wat {
    wat.fields("(global $product (mut i64) (i64.const 3))").body(
        function,
        &format!(
            "(loop $round
               (local.set $j (i32.const 200))
               (loop $turn
                 (global.set $product (i64.mul (global.get $product) (i64.const 6364136223846793005)))
                 (br_if $turn (local.tee $j (i32.sub (local.get $j) (i32.const 1)))))
               (drop (memory.grow (i32.const 0)))
               (br_if $round (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {rounds}))))"
        ),
    )
}

#[tokio::test]
async fn equal_rows_that_grow_their_memory_cost_the_same_however_often_they_yield() {
    for (rounds, rows) in [(40, 5_000), (4_000, 50)] {
        let processor = processor(&growing(Wat::batch(), "process-row", rounds).module());
        let inputs = vec!["{}"; rows];
        let (alone, _) = run_rows(session(&processor, limits()), &inputs[..1], Turns::NEVER).await;
        assert!(alone[0].1 > u64::from(rounds) * 200, "{alone:?}");
        for turns in [Turns::default(), at_every_return()] {
            let (accounts, yields) = run_rows(session(&processor, limits()), &inputs, turns).await;
            for account in &accounts {
                assert_eq!(account, &alone[0], "{turns:?}");
            }
            // The clock starts with the first return of a row.
            assert!(turns == Turns::default() || yields as usize >= rows * (rounds as usize - 1), "{yields}");
        }
        let fuel = alone[0].1;
        let with = async |fuel, rows| run_rows(session(&processor, Limits { fuel, ..limits() }), &inputs[..rows], at_every_return()).await.0;
        assert!(with(fuel, rows).await.iter().all(|account| account == &alone[0]));
        let limit = fuel - 1;
        assert_eq!(with(limit, 3).await, vec![(Ending::OutOfFuel { used: limit, limit, frames: vec![] }, limit); 3]);
    }
}

/// The property: whatever a guest does, and wherever it yields, its rows end the same way for the
/// same fuel.
#[tokio::test]
async fn no_yield_changes_the_fuel_of_any_program() {
    const PROGRAMS: u64 = 60;
    const FUEL: u64 = 300_000;
    let cache = TempDir::new().unwrap();
    let sandbox = Sandbox::new(4, cache.path()).unwrap();
    let inputs = ["{}"; 3];
    let (mut ran, mut forced) = (0, 0);
    for seed in 0..PROGRAMS {
        let mut random = Random::new(seed);
        let processor = sandbox.load(&programs::generate(&mut random).module()).unwrap();
        let limited = |fuel| session(&processor, Limits { fuel, ..limits() });
        let (expected, waits) = run_rows(limited(FUEL), &inputs, Turns::NEVER).await;
        ran += expected.iter().filter(|(ending, _)| matches!(ending, Ending::Succeeded(_))).count();
        let by_chance = (0..4).map(|_| turns(1 + random.below(20_000), 1 + u32::try_from(random.below(7)).unwrap()));
        // Every moment at which a guest can yield; only those by fuel; only those by time; and some
        // of them.
        for turns in [turns(1, 1), turns(1, u32::MAX), turns(u64::MAX, 1), at_every_return()].into_iter().chain(by_chance) {
            let (accounts, yields) = run_rows(limited(FUEL), &inputs, turns).await;
            assert_eq!(accounts, expected, "program {seed} with {turns:?}");
            forced += yields.saturating_sub(waits);
        }
        let (_, fuel) = expected[0];
        if fuel > 1_000 {
            let with = async |fuel| run_rows(limited(fuel), &inputs[..1], turns(1, 1)).await.0.remove(0);
            let exact = with(fuel).await;
            // A start may use ten times the fuel of a row, and some need more.
            if matches!(exact.0, Ending::CannotStart { .. }) {
                continue;
            }
            assert_eq!(exact, expected[0], "program {seed}");
            assert_eq!(with(fuel - 1).await, (Ending::OutOfFuel { used: fuel - 1, limit: fuel - 1, frames: vec![] }, fuel - 1), "program {seed}");
        }
    }
    // Most programs come to their ends within the limit, and they do yield.
    assert!(ran > 2 * inputs.len() * usize::try_from(PROGRAMS).unwrap() / 3, "{ran}");
    assert!(forced > 100_000, "{forced}");
}

/// Compiled code keeps the count in a register, and a trap leaves what it has written last. Where
/// that was does not depend on the time.
#[tokio::test]
async fn a_row_that_traps_reports_the_same_fuel_each_time() {
    let stops = [
        "(unreachable)",
        "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
        "(drop (i32.load (i32.const -4)))",
        "(drop (memory.grow (i32.const 60000)))",
        "(memory.fill (i32.const -4) (i32.const 0) (i32.const 8))",
        "(call $log (i32.const 9) (i32.const 0) (i32.const 0))",
        "(call $log (i32.const 0) (i32.const -4) (i32.const 8))",
    ];
    for stop in stops {
        let wat = Wat::batch().import_log().body(
            "process-row",
            &format!(
                "(loop $round
                   (local.set $j (i32.const 3000))
                   (loop $turn (br_if $turn (local.tee $j (i32.sub (local.get $j) (i32.const 1)))))
                   (call $log (i32.const 0) (i32.const 1024) (i32.const 10))
                   (drop (memory.grow (i32.const 0)))
                   (br_if $round (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 200))))
                 {stop}"
            ),
        );
        let processor = processor(&wat.module());
        let never = Turns { fuel: Turns::default().fuel, ..Turns::NEVER };
        let (expected, _) = run_rows(session(&processor, limits()), &["{}"; 3], never).await;
        assert!(expected[0].1 > 200 * 3_000 && !matches!(expected[0].0, Ending::Succeeded(_)), "{stop}: {expected:?}");
        for turns in [at_every_return(), Turns::default(), Turns { returns: NonZeroU32::new(3).unwrap(), ..at_every_return() }] {
            assert_eq!(run_rows(session(&processor, limits()), &["{}"; 3], turns).await.0, expected, "{stop}: {turns:?}");
        }
    }
}

/// The start of an instance and `mark-done` are armed like a row; `used` is their limit to the
/// unit.
#[tokio::test]
async fn begin_and_mark_done_run_out_of_fuel_at_the_same_unit_each_time() {
    for function in ["init", "begin", "mark-done"] {
        let processor = processor(&Wat::batch().body(function, "(loop $again (drop (memory.grow (i32.const 0))) (br $again))").module());
        for _ in 0..3 {
            let mut session = session(&processor, Limits { fuel: 300_000, ..limits() }).with_turns(at_every_return());
            let ended = if function == "mark-done" {
                session.mark_done(no_files()).await.ended.unwrap_err()
            } else {
                session.run_row(&row(1, "{}")).await.ending
            };
            assert!(ended.explain().contains("ran out of fuel: used 3000000, the limit is 3000000, in "), "{function}: {}", ended.explain());
        }
    }
}

/// A checker gets the same store: of equal files with the same limit either all pass or none.
#[tokio::test]
async fn a_checker_needs_the_same_fuel_each_time() {
    let checker = check::checker(&growing(Wat::file_check(), "check-records", 300).module());
    let passes = async |fuel| {
        let mut session = CheckSession::begin(&checker, check::spec(Limits { fuel, ..limits() })).await.unwrap();
        match session.check_records(&[]).await {
            Ok(_) => true,
            Err(CheckError::Stopped(Ending::OutOfFuel { .. })) => false,
            Err(other) => panic!("{other:?}"),
        }
    };
    let (mut fails, mut enough) = (1_000_u64, 10_000_000);
    while fails + 1 < enough {
        let middle = fails.midpoint(enough);
        *(if passes(middle).await { &mut enough } else { &mut fails }) = middle;
    }
    for _ in 0..200 {
        assert!(passes(enough).await && !passes(fails).await);
    }
}
