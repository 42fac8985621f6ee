//! What a guest keeps in its memory: for the rows of one instance, and for nobody else.

use rowmill::model::Limits;
use rowmill::sandbox::Processor;

use crate::support::guests;
use crate::support::sessions::{cannot_start, limits, output, processor, row, run_in, run_one, session, session_with, trap};
use crate::support::wat::{FREE, Wat, answer};

/// Answers how many rows its instance has run, in a global, in memory and in a table; an input that begins with a quote traps.
fn counting() -> Processor {
    let count = format!(
        "(if (i32.eq (i32.load8_u (local.get $input)) (i32.const 34)) (then (unreachable)))
         (global.set $rows (i32.add (global.get $rows) (i32.const 1)))
         (i32.store8 (i32.const {FREE}) (i32.add (i32.const 48) (global.get $rows)))
         (i32.store8 (i32.const {memory}) (i32.add (i32.const 1) (i32.load8_u (i32.const {memory}))))
         (drop (table.grow $kept (ref.null func) (i32.const 1)))
         (if (i32.ne (i32.load8_u (i32.const {memory})) (global.get $rows)) (then (unreachable)))
         (if (i32.ne (table.size $kept) (global.get $rows)) (then (unreachable)))
         {answer}",
        memory = FREE + 8,
        answer = answer(FREE, 1),
    );
    processor(&Wat::batch().fields("(global $rows (mut i32) (i32.const 0)) (table $kept 0 funcref)").body("process-row", &count).module())
}

#[tokio::test]
async fn the_next_row_after_a_trap_finds_nothing_of_the_rows_before_it() {
    let runs = run_in(session(&counting(), limits()), &["{}", "{}", "\"trap\"", "{}", "\"trap\"", "\"trap\"", "{}", "{}"]).await;
    for (at, count) in [(0, "1"), (1, "2"), (3, "1"), (6, "1"), (7, "2")] {
        assert_eq!(output(&runs[at]), count, "row {at}");
    }
    for at in [2, 4, 5] {
        assert_eq!(trap(&runs[at]).0, "it stopped itself (unreachable instruction) and said nothing");
    }
}

#[tokio::test]
async fn sec_3_sessions_never_share_an_instance_even_when_one_takes_the_place_of_another() {
    let counting = counting();
    // At the same time, and one after the other in the same place of the pool.
    let (mut first, mut second) = (session(&counting, limits()), session(&counting, limits()));
    for count in ["1", "2", "3"] {
        assert_eq!(output(&first.run_row(&row(1, "{}")).await), count);
        assert_eq!(output(&second.run_row(&row(1, "{}")).await), count);
    }
    first.close().await;
    second.close().await;
    for _ in 0..50 {
        assert_eq!(output(&run_one(&counting, limits(), "{}").await), "1");
    }
}

/// Pages of a dropped instance stay mapped to be used again: they must be zero again.
#[tokio::test]
async fn sec_3_memory_that_another_guest_wrote_is_zero_again() {
    let secret = Wat::batch().pages(1_000).body("process-row", "(memory.fill (i32.const 32768) (i32.const 83) (i32.const 65503232))");
    // Looks for anything that is not zero, and traps when it finds it.
    let nosy = Wat::batch().pages(1_000).body(
        "process-row",
        "(local.set $i (i32.const 40960))
         (loop $next (if (i64.ne (i64.load (local.get $i)) (i64.const 0)) (then (unreachable)))
           (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 8))) (i32.const 65536000))))",
    );
    let sandbox = crate::support::sessions::sandbox();
    let (secret, nosy) = (sandbox.load(&secret.module()).unwrap(), sandbox.load(&nosy.module()).unwrap());
    for _ in 0..3 {
        for processor in [&secret, &nosy] {
            assert_eq!(output(&run_one(processor, limits(), "{}").await), "{}");
        }
    }
}

#[tokio::test]
async fn more_sessions_at_once_than_the_sandbox_has_places_for_get_an_end_and_no_panic() {
    let processor = rowmill::sandbox::Sandbox::new(2, &guests::cache()).unwrap().load(&guests::read("misbehaving")).unwrap();
    // Beside the two places there are two for trial starts.
    let mut sessions: Vec<_> = (0..5).map(|_| session(&processor, limits())).collect();
    let ok = row(1, r#"{"do":"ok"}"#);
    for session in &mut sessions[..4] {
        assert_eq!(output(&session.run_row(&ok).await), "\"attempt 1\"");
    }
    let run = sessions[4].run_row(&ok).await;
    assert!(cannot_start(&run).starts_with("the instance: "), "{:?}", run.ending);
    drop(sessions);
    assert_eq!(output(&run_one(&processor, limits(), r#"{"do":"ok"}"#).await), "\"attempt 1\"");
}

#[tokio::test]
async fn sec_1_the_environment_the_arguments_and_the_directories_are_empty() {
    let list = |interface: &str, function: &str| {
        // An empty list is two zeros.
        super::wasi::guest(&[interface])
            .import(&format!("{interface}@0.2.0"), function, "list", "(param i32)")
            .body("process-row", &format!("(call $list (i32.const {FREE})) (if (i32.load (i32.const {})) (then (unreachable)))", FREE + 4))
    };
    for (interface, function) in
        [("wasi:cli/environment", "get-environment"), ("wasi:cli/environment", "get-arguments"), ("wasi:filesystem/preopens", "get-directories")]
    {
        assert_eq!(output(&run_one(&processor(&list(interface, function).module()), limits(), "{}").await), "{}", "{function}");
    }
}

/// Traps unless the result at the free address is an error of this number.
fn expect_error(offset: u32, code: u8) -> String {
    let byte = |at: u32| format!("(i32.load8_u (i32.const {at}))");
    format!(
        "(if (i32.ne {} (i32.const 1)) (then (unreachable))) (if (i32.ne {} (i32.const {code})) (then (unreachable)))",
        byte(FREE),
        byte(FREE + offset)
    )
}

#[tokio::test]
async fn net_1_sockets_are_denied_when_they_are_asked_for() {
    const ACCESS_DENIED: u8 = 1;
    for kind in ["tcp", "udp"] {
        let interface = format!("wasi:sockets/{kind}-create-socket");
        let create = super::wasi::guest(&[&interface])
            .import(&format!("{interface}@0.2.0"), &format!("create-{kind}-socket"), "create", "(param i32 i32)")
            .body("process-row", &format!("(call $create (i32.const 0) (i32.const {FREE})) {}", expect_error(4, ACCESS_DENIED)));
        assert_eq!(output(&run_one(&processor(&create.module()), limits(), "{}").await), "{}", "{kind}");
    }
}

#[tokio::test]
async fn net_1_names_are_not_looked_up() {
    const PERMANENT_RESOLVER_FAILURE: u8 = 20;
    let name = FREE + 64;
    let resolve = super::wasi::guest(&["wasi:sockets/instance-network", "wasi:sockets/ip-name-lookup"])
        .import("wasi:sockets/instance-network@0.2.0", "instance-network", "network", "(result i32)")
        .import("wasi:sockets/ip-name-lookup@0.2.0", "resolve-addresses", "resolve", "(param i32 i32 i32 i32)")
        .fields(&format!("(data (i32.const {name}) \"127.0.0.1\")"))
        .body(
            "process-row",
            &format!(
                "(call $resolve (call $network) (i32.const {name}) (i32.const 9) (i32.const {FREE})) {}",
                expect_error(4, PERMANENT_RESOLVER_FAILURE)
            ),
        );
    assert_eq!(output(&run_one(&processor(&resolve.module()), limits(), "{}").await), "{}");
}

#[tokio::test]
async fn an_exit_is_a_trap_that_says_so() {
    let exit = super::wasi::guest(&["wasi:cli/exit"])
        .import("wasi:cli/exit@0.2.0", "exit", "exit", "(param i32)")
        .body("process-row", "(call $exit (local.get $line))");
    let processor = processor(&exit.module());
    let runs = run_in(session(&processor, limits()), &["{}"]).await;
    assert_eq!(trap(&runs[0]).0, "the guest ended itself with exit status 1");
}

#[tokio::test]
async fn the_operation_reaches_the_guest_and_decides_how_its_start_fails() {
    let processor = processor(&guests::read("misbehaving-init"));
    let start = async |op: &str, limits: Limits| run_in(session_with(&processor, limits, op, "{}"), &["{}", "{}"]).await;
    let runs = start("error", limits()).await;
    assert_eq!(cannot_start(&runs[0]), "init: the configuration is wrong on purpose");
    let runs = start("panic", limits()).await;
    let reason = cannot_start(&runs[0]);
    assert!(reason.starts_with("init: was stopped by a trap: panicked at ") && reason.contains("init panics on purpose"), "{reason}");
    let runs = start("loop", Limits { fuel: 1_000_000, ..limits() }).await;
    let reason = cannot_start(&runs[0]);
    assert!(reason.starts_with("init: ran out of fuel: used 10000000, the limit is 10000000, in "), "{reason}");
    assert!(reason.contains("(misbehaving-init/src/lib.rs:"), "{reason}");
    // It is not tried again for each row.
    assert_eq!((runs[0].fuel, runs[1].fuel), (10_000_000, 0));
    assert_eq!(runs[1].ending, runs[0].ending);
}
