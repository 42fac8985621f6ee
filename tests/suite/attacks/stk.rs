//! The stack.

use super::{Arena, failure, free};
use crate::sandbox::wasi;
use crate::support::guests;
use crate::support::wat::{FREE, Wat};

/// A function whose frame holds some hundred kilobytes, and which calls itself.
fn huge_frames() -> Wat {
    let locals = "i64 ".repeat(15_000);
    let next = |local: u32| format!("(local.set {local} (i64.mul (i64.add (local.get {}) (i64.const {local})) (local.get 0)))", local - 1);
    let kept: String = (1..15_000).map(next).collect();
    let used: String = (1_u32..15_000).map(|local| format!("(global.set $sum (i64.add (global.get $sum) (local.get {local})))")).collect();
    Wat::batch()
        .fields(&format!(
            "(global $sum (mut i64) (i64.const 0)) (func $deep (param i64) (local {locals}) {kept} (call $deep (local.get 14999)) {used})"
        ))
        .body("process-row", "(call $deep (i64.const 1))")
}

/// The host calls the allocator to hand over what it was asked for, and the allocator asks again.
fn through_the_host() -> Wat {
    let ask = format!("(call $random (i64.const 16) (i32.const {FREE}))");
    wasi::guest(&["wasi:random/random"])
        .import("wasi:random/random@0.2.0", "get-random-bytes", "random", "(param i64 i32)")
        .fields("(global $asking (mut i32) (i32.const 0))")
        .body("realloc", &format!("(if (global.get $asking) (then {ask})) (i32.const 32768)"))
        .body("process-row", &format!("(global.set $asking (i32.const 1)) {ask}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn stk_1_recursion_huge_frames_and_the_way_through_the_host_are_traps() {
    let arena = Arena::open().await;
    arena.limit(free()).await;
    let endless = Wat::batch().fields("(func $deep (call $deep))").body("process-row", "(call $deep)").module();
    for (op, wasm, input, text) in [
        ("rust", guests::read("misbehaving"), r#"{"do":"recurse"}"#, "call stack exhausted"),
        ("endless", endless, "{}", "call stack exhausted"),
        ("frames", huge_frames().module(), "{}", "call stack exhausted"),
        ("host", through_the_host().module(), "{}", "cannot leave component instance"),
    ] {
        arena.deploy(op, wasm).await;
        let (_, rows) = arena.attack(op, &[input, input]).await;
        for row in &rows {
            let told = failure(row);
            assert!(told.code == "trap" && told.values[0].contains(text), "{op}: {told:?}");
        }
    }
    arena.close().await;
}
