//! Host functions: a guest that calls them as arbitrary bytes say, with everything granted, an instance for each input.

mod place;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Unstructured;
use rowmill::model::{Answer, Ending, JsonText, LeasedRow, Limits, ProcessorKind, RowRun};
use rowmill::sandbox::{Capabilities, Processor, Sandbox, Session, SessionSpec};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use wit_parser::SizeAlign;

use self::place::Place;
use super::calls::{CALL_BYTES, Calls, IMAGE};
use super::guest::{Import, World, name_of};
use super::{TOLD_BYTES_MAX, scratch};
use crate::running::batch;

/// All that a processor may import.
const WORLD: &str = "
    include rowmill:jobs/batch-processor@0.1.0;
    import rowmill:objects/store@0.1.0;
    import rowmill:sql/query@0.1.0;
    import wasi:config/store@0.2.0-rc.1;
    import wasi:keyvalue/store@0.2.0-draft;
    import wasi:keyvalue/atomics@0.2.0-draft;
    import wasi:keyvalue/batch@0.2.0-draft;
    import wasi:http/types@0.2.12;
    import wasi:http/outgoing-handler@0.2.12;
    import wasi:io/error@0.2.12;
    import wasi:io/poll@0.2.12;
    import wasi:io/streams@0.2.12;
    import wasi:clocks/monotonic-clock@0.2.12;
    import wasi:clocks/wall-clock@0.2.12;
    import wasi:filesystem/types@0.2.12;
    import wasi:filesystem/preopens@0.2.12;
    import wasi:random/random@0.2.12;
    import wasi:random/insecure@0.2.12;
    import wasi:random/insecure-seed@0.2.12;
    import wasi:sockets/network@0.2.12;
    import wasi:sockets/instance-network@0.2.12;
    import wasi:sockets/ip-name-lookup@0.2.12;
    import wasi:sockets/tcp@0.2.12;
    import wasi:sockets/tcp-create-socket@0.2.12;
    import wasi:sockets/udp@0.2.12;
    import wasi:sockets/udp-create-socket@0.2.12;
    import wasi:cli/environment@0.2.12;
    import wasi:cli/exit@0.2.12;
    import wasi:cli/stdin@0.2.12;
    import wasi:cli/stdout@0.2.12;
    import wasi:cli/stderr@0.2.12;
    import wasi:cli/terminal-input@0.2.12;
    import wasi:cli/terminal-output@0.2.12;
    import wasi:cli/terminal-stdin@0.2.12;
    import wasi:cli/terminal-stdout@0.2.12;
    import wasi:cli/terminal-stderr@0.2.12;
";
/// Calls that lead far, which chance alone would seldom make one after the other: a request, its body, and its response; and a file.
const WAYS: [&[&str]; 3] = [
    &[
        "[constructor]fields",
        "[method]fields.append",
        "[constructor]outgoing-request",
        "[method]outgoing-request.set-scheme",
        "[method]outgoing-request.set-authority",
        "handle",
        "[method]future-incoming-response.subscribe",
        "[method]pollable.block",
        "[method]future-incoming-response.get",
        "[method]incoming-response.headers",
        "[method]incoming-response.consume",
        "[method]incoming-body.stream",
        "[method]input-stream.blocking-read",
        "[method]input-stream.blocking-read",
        "http-error-code",
    ],
    &[
        "[constructor]fields",
        "[constructor]outgoing-request",
        "[method]outgoing-request.set-method",
        "[method]outgoing-request.set-scheme",
        "[method]outgoing-request.set-authority",
        "[method]outgoing-request.set-path-with-query",
        "[method]outgoing-request.body",
        "[method]outgoing-body.write",
        "handle",
        "[method]output-stream.blocking-write-and-flush",
        "[resource-drop]output-stream",
        "[static]outgoing-body.finish",
        "[method]future-incoming-response.subscribe",
        "[method]pollable.block",
        "[method]future-incoming-response.get",
    ],
    &[
        "get-directories",
        "[method]descriptor.open-at",
        "[method]descriptor.write",
        "[method]descriptor.write-via-stream",
        "[method]output-stream.blocking-write-and-flush",
        "[method]descriptor.read-directory",
        "[method]descriptor.symlink-at",
        "[method]descriptor.open-at",
    ],
];
/// Behind a log that was cut.
const MARK_BYTES_MAX: usize = 100;

struct Stage {
    world: World,
    imports: Vec<Import>,
    /// Functions by their places among the imports.
    ways: Vec<Vec<usize>>,
    sizes: SizeAlign,
    processor: Processor,
    limits: Limits,
    runtime: Runtime,
    place: Place,
    _cache: TempDir,
}

static STAGE: LazyLock<Stage> = LazyLock::new(|| {
    let world = World::new(WORLD);
    let imports = world.imports();
    let mut module = world.module(&imports, &trampolines(&imports), &BTreeMap::from([("process-row", driver())]));
    world.embed(&mut module);
    let cache = scratch();
    let processor = Sandbox::new(2, cache.path()).expect("there is a sandbox").load(&module).expect("the guest is good");
    let place_of = |name: &&str| imports.iter().position(|import| import.name == *name).unwrap_or_else(|| panic!("there is no {name}"));
    let ways = WAYS.iter().map(|way| way.iter().map(place_of).collect()).collect();
    let mut sizes = SizeAlign::default();
    sizes.fill(&world.resolve);
    let limits = Limits {
        fuel: 20_000_000,
        timeout: Duration::from_millis(20),
        memory_bytes: 8 << 20,
        output_bytes: 2_000,
        messages: 3,
        pieces: 3,
        log_bytes: 500,
        ..Limits::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("there are threads");
    Stage { world, imports, ways, sizes, processor, limits, runtime, place: Place::new(), _cache: cache }
});

/// Makes calls of these bytes, and lets a guest call them.
pub fn check(input: &[u8]) {
    let stage = &*STAGE;
    let returns = stage.world.export("process-row").expect("the contract has it");
    let mut u = Unstructured::new(input);
    let Ok(answers) = u.arbitrary::<&[u8]>() else { return };
    let calls = Calls::new(&stage.world.resolve, &stage.sizes, stage.place.words(), &mut u);
    let Ok(image) = calls.write(&stage.imports, &stage.ways, returns) else { return };
    stage.place.answer_with(answers);
    let run = stage.runtime.block_on(async {
        let capabilities = stage.place.capabilities().await;
        run(stage, capabilities, &image).await
    });
    check_run(&run, &stage.limits);
    stage.place.check_and_clear();
}

/// For a corpus.
pub fn seeds() -> Vec<Vec<u8>> {
    (0..64).map(|seed| super::bytes(seed, 200 + 20 * usize::try_from(seed).unwrap_or(0))).collect()
}

async fn run(stage: &Stage, capabilities: Capabilities, image: &[u8]) -> RowRun {
    let spec = SessionSpec {
        batch: batch(ProcessorKind::Batch, place::APP, "op", JsonText::default()),
        limits: stage.limits.clone(),
        cancel: CancellationToken::new(),
        progress: Some(Arc::new(|percent, text| assert!(percent <= 100 && text.len() <= 1_000, "{percent} {text}"))),
        capabilities: Arc::new(capabilities),
    };
    let mut session = Session::new(stage.processor.clone(), spec);
    let input = image.iter().flat_map(|byte| [b'a' + (byte >> 4), b'a' + (byte & 15)]).map(char::from).collect();
    let run = session.run_row(&LeasedRow { row_no: 1, line: 1, input, attempt: 1, rejected: None }).await;
    session.close().await;
    run
}

/// However a row ends, it ends as the model has it, within its limits.
fn check_run(run: &RowRun, limits: &Limits) {
    assert!(run.fuel <= limits.fuel, "{run:?}");
    let log = run.log.as_deref().unwrap_or_default();
    assert!(log.len() <= limits.log_bytes as usize + MARK_BYTES_MAX, "{run:?}");
    assert!(run.ending.explain().len() <= TOLD_BYTES_MAX, "{run:?}");
    match &run.ending {
        Ending::Succeeded(answer) | Ending::Failed(answer) => check_answer(answer, limits),
        Ending::Trap { text, .. } => assert!(!text.contains("the host failed"), "{run:?}"),
        // The machine may be busy.
        Ending::CannotStart { reason } if reason.contains("did not end in time") => {}
        Ending::CannotStart { .. } | Ending::Cancelled | Ending::Rejected { .. } | Ending::Quarantined { .. } => panic!("{run:?}"),
        _ => {}
    }
}

fn check_answer(answer: &Answer, limits: &Limits) {
    let Answer { output, messages, pieces } = answer;
    assert!(messages.len() <= limits.messages as usize && pieces.len() <= limits.pieces as usize, "{answer:?}");
    let output = output.as_deref().unwrap_or("{}");
    assert!(JsonText::check(output).is_ok(), "{answer:?}");
    let bytes = output.len() + pieces.iter().map(|piece| piece.file.len() + piece.text.len()).sum::<usize>();
    assert!(bytes as u64 <= limits.output_bytes + 2, "{answer:?}");
    let plain = |name: &str| !name.starts_with('.') && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    assert!(pieces.iter().all(|piece| plain(&piece.file)), "{answer:?}");
}

/// For each function one that takes its arguments from memory, and a table of these.
fn trampolines(imports: &[Import]) -> String {
    let mut text = "(type $call (func (param i32)))\n".to_owned();
    for (at, import) in imports.iter().enumerate() {
        let _ = write!(text, "(func $call{at} (param $at i32) (call $import{at}");
        for (number, param) in import.signature.params.iter().enumerate() {
            let _ = write!(text, " ({}.load offset={} (local.get $at))", name_of(*param), 8 * number);
        }
        text.push(')');
        text.extend(import.signature.results.iter().map(|_| " (drop)"));
        text.push_str(")\n");
    }
    let all = (0..imports.len()).map(|at| format!(" $call{at}")).collect::<String>();
    let _ = writeln!(text, "(table funcref (elem{all}))");
    text
}

/// Reads the image from the input, two letters a byte, makes its calls, and returns its outcome.
fn driver() -> String {
    let nibble = |offset: u32| format!("(i32.sub (i32.load8_u offset={offset} (i32.add (local.get $p1) (local.get $i))) (i32.const 97))");
    format!(
        "(block $read (loop $next
            (br_if $read (i32.ge_u (local.get $i) (local.get $p2)))
            (i32.store8 (i32.add (i32.const {IMAGE}) (i32.shr_u (local.get $i) (i32.const 1))) (i32.or (i32.shl {} (i32.const 4)) {}))
            (local.set $i (i32.add (local.get $i) (i32.const 2)))
            (br $next)))
         (local.set $i (i32.const 0))
         (local.set $j (i32.const {first}))
         (block $done (loop $next
            (br_if $done (i32.ge_u (local.get $i) (i32.load (i32.const {IMAGE}))))
            (call_indirect (type $call) (i32.add (local.get $j) (i32.const 8)) (i32.load (local.get $j)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (local.set $j (i32.add (local.get $j) (i32.const {CALL_BYTES})))
            (br $next)))
         (select (i32.load (i32.const {outcome})) (i32.const 16) (i32.load (i32.const {outcome})))",
        nibble(0),
        nibble(1),
        first = IMAGE + 16,
        outcome = IMAGE + 8,
    )
}
