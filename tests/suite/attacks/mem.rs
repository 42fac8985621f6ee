//! Memory, of the guest and of the host. That apps wait for the memory of the worker (MEM-4) stands with the guests of apps.

use rowmill::model::{Limits, RowStatus};

use super::{Arena, MIB, failure, free, numbers};
use crate::sandbox::wasi;
use crate::support::guests;
use crate::support::wat::{FREE, RETURNED, Wat, with_another_module};

const PAGE: u64 = 64 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn mem_1_more_memory_than_the_limit_is_refused_with_both_numbers() {
    let arena = Arena::open().await;
    let limit = 16 * MIB;
    arena.limit(Limits { memory_bytes: limit, ..free() }).await;
    let row = async |op: &str, wasm: Vec<u8>, input: &str| {
        arena.deploy(op, wasm).await;
        arena.attack_row(op, input).await
    };
    // By the page, by a compiled allocator, and in a table.
    let grower = Wat::batch().body("process-row", "(loop $again (drop (memory.grow (i32.const 1))) (br $again))").module();
    assert_eq!(numbers(&row("grow", grower, "{}").await), ("memory", vec![limit + PAGE, limit]));
    let hog = row("hog", guests::read("misbehaving"), r#"{"do":"hog"}"#).await;
    let (code, values) = numbers(&hog);
    assert!(code == "memory" && values[0] > limit && values[1] == limit, "{hog:?}");
    let table = Wat::batch()
        .fields("(table $t 1 funcref)")
        .body("process-row", "(loop $again (drop (table.grow $t (ref.null func) (i32.const 1000))) (br $again))");
    arena.limit(Limits { memory_bytes: 512 << 10, ..free() }).await;
    let table = row("table", table.module(), "{}").await;
    let (code, values) = numbers(&table);
    assert!(code == "memory" && values[0] > 512 << 10 && values[1] == 512 << 10, "{table:?}");
    arena.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mem_1_the_memory_and_tables_count_together_from_the_start() {
    let arena = Arena::open().await;
    arena.limit(Limits { memory_bytes: 64 * MIB, ..free() }).await;
    arena.deploy("large", Wat::batch().pages(1_600).module()).await;
    let told = arena.attack_row("large", "{}").await;
    assert_eq!(told.values, [format!("the instance: ran out of memory: needed {} bytes, the limit is {}", 100 * MIB, 64 * MIB)]);
    arena.limit(Limits { memory_bytes: 512 << 10, ..free() }).await;
    arena.deploy("table", with_another_module(Wat::batch().component(), "(module (table 90000 funcref))")).await;
    let told = arena.attack_row("table", "{}").await;
    assert!(told.values[0].starts_with("the instance: ran out of memory: needed "), "{told:?}");
    arena.close().await;
}

/// What no limit of an app could allow is refused when it is uploaded.
#[tokio::test(flavor = "multi_thread")]
async fn mem_1_what_is_larger_than_any_limit_is_no_upload() {
    let arena = Arena::open().await;
    let globals = (0..100_001).map(|_| "(global i32 (i32.const 0))").collect::<String>();
    let memories = (0..5).fold(Wat::batch().component(), |component, _| with_another_module(component, "(module (memory 1))"));
    for (what, wasm, sentence) in [
        ("memory", Wat::batch().pages(4_097).module(), "exceeds the limit of 0x10000000 bytes"),
        ("table", with_another_module(Wat::batch().component(), "(module (table 4000000000 funcref))"), "table"),
        ("globals", with_another_module(Wat::batch().component(), &format!("(module {globals})")), "and may have 100000"),
        ("memories", memories, "memories"),
        ("second", with_another_module(Wat::batch().component(), "(module (memory 1))"), "more than one memory"),
    ] {
        let refused = arena.beside(arena.site.jobs.register_processor(super::HOSTILE, what, wasm)).await.unwrap_err();
        let told = format!("{:#}", anyhow::Error::from(refused));
        assert!(told.contains(sentence), "{what}: {told}");
    }
    arena.close().await;
}

/// Returns an outcome with so many messages, each of which has one text as its code and so many as values, all of them in the same place.
fn overlapping(messages: u32, text_bytes: u32, values: u32) -> Wat {
    let store = |at: &str, value: u32| format!("(i32.store {at} (i32.const {value}))");
    let field = |offset: u32| format!("(i32.add (local.get $i) (i32.const {offset}))");
    let (first, size) = (65_536, 32);
    // A message is id, code, field (with whether there is one) and values.
    let one = [store(&field(4), 2_097_152), store(&field(8), text_bytes), store(&field(24), 2_097_152), store(&field(28), values)].concat();
    Wat::batch().pages(1_600).body(
        "process-row",
        &format!(
            "(local.set $i (i32.const {first}))
             (loop $next {one} (local.set $i (i32.add (local.get $i) (i32.const {size})))
               (br_if $next (i32.lt_u (local.get $i) (i32.const {end}))))
             (i32.store (i32.const {pointer}) (i32.const {first})) (i32.store (i32.const {length}) (i32.const {messages}))",
            size = size,
            end = first + messages * size,
            pointer = RETURNED + 20,
            length = RETURNED + 24,
        ),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn mem_2_lists_that_grow_when_they_are_read_fail_the_row() {
    let arena = Arena::open().await;
    arena.limit(Limits { memory_bytes: 128 * MIB, ..free() }).await;
    for (op, messages, text_bytes, values) in [
        // Four gigabytes of text from one of four megabytes.
        ("overlapping", 1_000, 4 << 20, 0),
        // Texts that cost the guest eight bytes each, and the host three times as much.
        ("ten-million", 1, 0, 10_000_000),
        // Lists of a million in a list of a thousand.
        ("nested", 1_000, 0, 1_000_000),
    ] {
        arena.deploy(op, overlapping(messages, text_bytes, values).module()).await;
        let (_, rows) = arena.attack(op, &["{}", "{}", "{}"]).await;
        for row in &rows {
            let told = failure(row);
            assert!(told.code == "bad_output" && told.values[0].starts_with("what it passed cannot be read: "), "{op}: {told:?}");
        }
    }
    arena.close().await;
}

/// The same on the way into host functions.
#[tokio::test(flavor = "multi_thread")]
async fn mem_2_texts_and_lists_for_host_functions_are_bounded() {
    let arena = Arena::open().await;
    arena.limit(Limits { memory_bytes: 128 * MIB, ..free() }).await;
    let log = Wat::batch().import_log().pages(1_600).body("process-row", "(call $log (i32.const 0) (i32.const 65536) (i32.const 100000000))");
    let poll = wasi::guest(&["wasi:io/poll", "wasi:clocks/monotonic-clock"])
        .import("wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration", "subscribe", "(param i64) (result i32)")
        .import("wasi:io/poll@0.2.0", "poll", "poll", "(param i32 i32 i32)")
        .pages(1_600)
        .body(
            "process-row",
            &format!("(drop (call $subscribe (i64.const 0))) (call $poll (i32.const 65536) (i32.const 10000000) (i32.const {FREE}))"),
        );
    for (op, guest) in [("log", log), ("poll", poll)] {
        arena.deploy(op, guest.module()).await;
        let told = arena.attack_row(op, "{}").await;
        println!("{op}: {told:?}");
        assert!(["bad_output", "trap"].contains(&told.code.as_str()), "{op}: {told:?}");
    }
    arena.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mem_3_handles_and_random_bytes_are_capped() {
    let arena = Arena::open().await;
    arena.limit(free()).await;
    let handles = wasi::guest(&["wasi:io/poll", "wasi:clocks/monotonic-clock"])
        .import("wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration", "subscribe", "(param i64) (result i32)")
        .body(
            "process-row",
            "(loop $again (drop (call $subscribe (i64.const 0)))
               (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000000))))",
        );
    let random = wasi::guest(&["wasi:random/random"])
        .import("wasi:random/random@0.2.0", "get-random-bytes", "random", "(param i64 i32)")
        .body("process-row", &format!("(call $random (i64.const 1073741824) (i32.const {FREE}))"));
    for (op, guest) in [("handles", handles), ("random", random)] {
        arena.deploy(op, guest.module()).await;
        let (_, rows) = arena.attack(op, &["{}", "{}"]).await;
        for row in &rows {
            let told = failure(row);
            println!("{op}: {told:?}");
            assert!(["bad_output", "trap"].contains(&told.code.as_str()), "{op}: {told:?}");
        }
    }
    // As many as there may be are no reason to fail.
    let some = wasi::guest(&["wasi:random/random"])
        .import("wasi:random/random@0.2.0", "get-random-bytes", "random", "(param i64 i32)")
        .body("process-row", &format!("(call $random (i64.const 1024) (i32.const {FREE}))"));
    arena.deploy("some", some.module()).await;
    assert_eq!(arena.attack("some", &["{}"]).await.1[0].status, Some(RowStatus::Success));
    arena.close().await;
}
