//! Generated guests that mix loops, calls, libcalls and calls of the host. They never trap, and
//! what the host answers changes nothing of what they do.

use std::fmt::Write as _;

use rowmill_tests::random::Random;

use super::wasi;
use crate::support::wat::Wat;

/// Functions `$f0`, `$f1` …; each calls only later ones, so that no program runs for ever.
const FUNCTIONS: u64 = 4;
const LOOPS_DEEP: u64 = 2;

/// Instructions that compiled code leaves to the host, or that move as many bytes as they say. `X`
/// is a small number that is known only when the guest runs.
const LIBCALLS: [&str; 20] = [
    "(drop (memory.grow (i32.const 0)))",
    "(if (i32.lt_u (memory.size) (i32.const 20)) (then (drop (memory.grow (i32.const 1)))))",
    "(memory.copy (i32.const 1024) (i32.const 4096) (i32.const 2000))",
    "(memory.copy (i32.const 1024) (i32.const 4096) X)",
    "(memory.fill (i32.const 1024) (i32.const 7) (i32.const 3000))",
    "(memory.fill (i32.const 1024) (i32.const 7) X)",
    "(memory.init $kept_data (i32.const 1024) (i32.const 0) (i32.and X (i32.const 15)))",
    "(memory.init $lost_data (i32.const 1024) (i32.const 0) (i32.const 0)) (data.drop $lost_data)",
    "(table.init $small $kept_functions (i32.const 0) (i32.const 0) (i32.const 3))",
    "(table.init $small $kept_functions (i32.const 0) (i32.const 0) (i32.and X (i32.const 3)))",
    "(table.init $small $lost_functions (i32.const 0) (i32.const 0) (i32.const 0)) (elem.drop $lost_functions)",
    "(table.copy $large $small (i32.const 0) (i32.const 0) (i32.and X (i32.const 3)))",
    "(table.copy $large $large (i32.const 0) (i32.const 10) X)",
    "(table.fill $large (i32.const 0) (ref.func $f0) X)",
    "(table.set $large (i32.const 0) (table.get $small (i32.const 1)))",
    "(drop (ref.is_null (table.get $large X)))",
    "(drop (table.grow $small (ref.null func) (i32.const 0)))",
    "(drop (table.grow $small (ref.func $f1) (i32.const 1)))",
    // More than its type allows.
    "(drop (table.grow $small (ref.null func) (i32.const 1000)))",
    "(drop (table.grow $large (ref.func $f1) (i32.and X (i32.const 1))))",
];

const HOST_CALLS: [&str; 7] = [
    "(call $log (i32.const 2) (i32.const 1024) (i32.const 5))",
    "(call $log (i32.const 2) (i32.const 1024) (i32.const 2048))",
    "(drop (call $left))",
    "(drop (call $cancelled))",
    // A list: the host calls the guest's `realloc` for it.
    "(call $random (i64.const 100) (i32.const 1024))",
    "(call $drop (call $subscribe (i64.const 0)))",
    "(local.set $handle (call $subscribe (i64.const 0))) (call $block (local.get $handle)) (call $drop (local.get $handle))",
];

struct Program<'a> {
    random: &'a mut Random,
    /// Calls of the host are allowed. They are not in `realloc` and where the host cleans up.
    may_leave: bool,
    labels: u32,
}

/// A batch processor. Its rows do different things by their lines.
pub fn generate(random: &mut Random) -> Wat {
    let mut program = Program { random, may_leave: true, labels: 0 };
    let mut functions = String::new();
    for function in 0..FUNCTIONS {
        let body = program.block(function + 1, 0);
        writeln!(functions, "(func $f{function} (type $step) (param $x i32) (result i32) {LOCALS} {body} (local.get $x))").unwrap();
    }
    let row = program.block(0, 0);
    let begin = program.block(FUNCTIONS, 0);
    program.may_leave = false;
    let (realloc, cleanup) = (program.block(FUNCTIONS, 0), program.block(FUNCTIONS, 0));
    let fields = format!(
        "(type $step (func (param i32) (result i32)))
         (table $steps funcref (elem $f{last}))
         (table $small 4 40 funcref)
         (table $large 2048 4096 funcref)
         (elem $kept_functions func $f0 $f1 $f2)
         (elem $lost_functions func $f0)
         (data $kept_data \"sixteen letters.\")
         (data $lost_data \"gone\")
         {functions}
         (func $row (param $x i32) {LOCALS} {row})
         (func $begin (param $x i32) {LOCALS} {begin})
         (func $realloc (param $x i32) {LOCALS} {realloc})
         (func (export \"cabi_post_rowmill:jobs/batch@0.1.0#process-row\") (param $x i32) {LOCALS} {cleanup})",
        last = FUNCTIONS - 1,
    );
    wasi::guest(&["wasi:random/random", "wasi:io/poll", "wasi:clocks/monotonic-clock"])
        .import_log()
        .import("rowmill:jobs/host@0.1.0", "remaining-ms", "left", "(result i64)")
        .import("rowmill:jobs/host@0.1.0", "cancelled", "cancelled", "(result i32)")
        .import("wasi:random/random@0.2.0", "get-random-bytes", "random", "(param i64 i32)")
        .import("wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration", "subscribe", "(param i64) (result i32)")
        .import("wasi:io/poll@0.2.0", "[method]pollable.block", "block", "(param i32)")
        .import("wasi:io/poll@0.2.0", "[resource-drop]pollable", "drop", "(param i32)")
        .fields(&fields)
        .body("begin", "(call $begin (local.get $context_len))")
        .body("process-row", "(call $row (local.get $line))")
        // One place for all: nothing that the guest is given changes what it does.
        .body("realloc", "(call $realloc (local.get $size)) (i32.const 16384)")
}

const LOCALS: &str = "(local $n0 i32) (local $n1 i32) (local $handle i32)";

impl Program<'_> {
    /// Some statements of the function before `callee`, in so many loops.
    fn block(&mut self, callee: u64, depth: u64) -> String {
        (0..2 + self.random.below(4)).map(|_| self.statement(callee, depth)).collect::<Vec<_>>().join("\n")
    }

    fn statement(&mut self, callee: u64, depth: u64) -> String {
        let (calls, loops) = (callee < FUNCTIONS, depth < LOOPS_DEEP);
        match self.random.below(12) {
            0 => "(local.set $x (i32.add (i32.mul (local.get $x) (i32.const 1664525)) (i32.const 1013904223)))".repeat(3),
            1 | 2 if loops => {
                let (label, times) = (self.label(), 2 + self.random.below(7));
                let body = self.block(callee, depth + 1);
                let left = format!("(local.tee $n{depth} (i32.sub (local.get $n{depth}) (i32.const 1)))");
                format!("(local.set $n{depth} (i32.const {times})) (loop $l{label} {body} (br_if $l{label} {left}))")
            }
            3 => {
                let (then, other) = (self.block(callee, LOOPS_DEEP), self.block(FUNCTIONS, LOOPS_DEEP));
                format!("(if (i32.and (local.get $x) (i32.const {})) (then {then}) (else {other}))", 1 << self.random.below(3))
            }
            4 if calls => format!("(local.set $x (call $f{} (local.get $x)))", callee + self.random.below(FUNCTIONS - callee)),
            5 if calls => "(local.set $x (call_indirect $steps (type $step) (local.get $x) (i32.const 0)))".to_owned(),
            6 | 7 if self.may_leave => self.random.pick(&HOST_CALLS).to_owned(),
            _ => self.random.pick(&LIBCALLS).replace('X', "(i32.and (local.get $x) (i32.const 1023))"),
        }
    }

    fn label(&mut self) -> u32 {
        self.labels += 1;
        self.labels
    }
}
