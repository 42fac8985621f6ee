//! Memory: one limit over everything that an instance has.

use rowmill::model::{Ending, Limits};

use crate::support::sessions::{bare, cannot_start, limits, output, processor, run_in, run_one, sandbox, session, trap};
use crate::support::wat::{Wat, with_another_module};

const PAGE: u64 = 64 << 10;
const MIB: u64 = 1 << 20;

/// Grows its memory by as many pages as its line says.
fn grower() -> Wat {
    Wat::batch().body("process-row", "(drop (memory.grow (local.get $line)))")
}

#[tokio::test]
async fn memory_can_be_taken_up_to_the_limit_and_not_a_page_more() {
    let processor = processor(&grower().module());
    let grow = async |pages| {
        let mut session = session(&processor, Limits { memory_bytes: MIB, ..limits() });
        session.run_row(&crate::support::sessions::row(pages, "{}")).await
    };
    assert_eq!(output(&grow(15).await), "{}");
    assert_eq!(bare(grow(16).await.ending), Ending::Memory { needed_bytes: MIB + PAGE, limit_bytes: MIB, frames: vec![] });
    // More than there are addresses: not too much for the limit, but no request at all.
    let run = grow(u32::MAX).await;
    assert!(!matches!(run.ending, Ending::CannotStart { .. }), "{:?}", run.ending);
}

#[tokio::test]
async fn memory_that_was_taken_counts_until_the_instance_ends() {
    let processor = processor(&grower().module());
    let runs = run_in(session(&processor, Limits { memory_bytes: 3 * PAGE, ..limits() }), &["{}", "{}", "{}"]).await;
    // The rows have the lines 1, 2 and 3, and the instance one page to begin with.
    assert_eq!(output(&runs[0]), "{}");
    assert_eq!(bare(runs[1].ending.clone()), Ending::Memory { needed_bytes: 4 * PAGE, limit_bytes: 3 * PAGE, frames: vec![] });
    assert_eq!(bare(runs[2].ending.clone()), Ending::Memory { needed_bytes: 4 * PAGE, limit_bytes: 3 * PAGE, frames: vec![] });
}

/// Between two memories wasmtime would move texts that cost no fuel.
#[tokio::test]
async fn an_instance_has_one_memory_that_is_not_empty() {
    let beside = |module: &str| with_another_module(Wat::batch().component(), module);
    let refused = sandbox().load(&beside("(module (memory 1))")).err().unwrap().to_string();
    assert_eq!(
        refused,
        "this component has more than one memory that is not empty, and a processor has one: components cannot be put together in one"
    );
    let empty = processor(&beside("(module (memory 0))"));
    assert_eq!(output(&run_one(&empty, limits(), "{}").await), "{}");
    // Only those that run find that it grows.
    let growing = processor(&beside("(module (memory 0) (func $start (drop (memory.grow (i32.const 1)))) (start $start))"));
    let told =
        "the instance: was stopped by a trap: it needs a second memory, and an instance may have one: components cannot be put together in one";
    assert_eq!(cannot_start(&run_one(&growing, limits(), "{}").await), told);
}

#[tokio::test]
async fn tables_count_as_memory() {
    let table = with_another_module(Wat::batch().component(), "(module (table 90000 funcref))");
    let run = run_one(&processor(&table), Limits { memory_bytes: 512 << 10, ..limits() }, "{}").await;
    assert!(cannot_start(&run).starts_with("the instance: ran out of memory: needed "), "{:?}", run.ending);
    let growing = Wat::batch()
        .fields("(table $t 1 funcref)")
        .body("process-row", "(loop $again (drop (table.grow $t (ref.null func) (i32.const 100))) (br $again))");
    let run = run_one(&processor(&growing.module()), Limits { memory_bytes: 512 << 10, ..limits() }, "{}").await;
    assert!(matches!(run.ending, Ending::Memory { needed_bytes, .. } if needed_bytes > 512 << 10), "{:?}", run.ending);
}

#[tokio::test]
async fn a_memory_that_is_larger_than_the_limit_from_the_start_is_refused_with_both_numbers() {
    let processor = processor(&Wat::batch().pages(1_600).module());
    let run = run_one(&processor, limits(), "{}").await;
    assert_eq!(cannot_start(&run), format!("the instance: ran out of memory: needed {} bytes, the limit is {}", 100 * MIB, limits().memory_bytes));
    assert_eq!(output(&run_one(&processor, Limits { memory_bytes: 100 * MIB, ..limits() }, "{}").await), "{}");
}

#[tokio::test]
async fn a_memory_that_is_larger_than_any_limit_can_be_is_refused_when_it_is_loaded() {
    let pages = u32::try_from(Limits::MEMORY_MAX_BYTES / PAGE).unwrap();
    assert!(sandbox().load(&Wat::batch().pages(pages).module()).is_ok());
    let refused = sandbox().load(&Wat::batch().pages(pages + 1).module()).err().unwrap().to_string();
    assert!(refused.ends_with("memory has a minimum byte size of 268500992 which exceeds the limit of 0x10000000 bytes"), "{refused}");
}

#[tokio::test]
async fn an_access_out_of_bounds_is_a_trap_that_says_so() {
    let outside = Wat::batch().body("process-row", "(i32.store (i32.const 65536) (i32.const 1))");
    let run = run_one(&processor(&outside.module()), limits(), "{}").await;
    let (text, frames) = trap(&run);
    assert_eq!(text, "wasm trap: out of bounds memory access");
    assert_eq!(frames, ["batch/process-row"]);
}
