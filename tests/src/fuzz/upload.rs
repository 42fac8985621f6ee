//! Uploads: the first look, lifting, compiling in this process, and whether the world is one of ours.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Result, Unstructured};
use rowmill::model::Grants;
use rowmill::sandbox::{LoadError, Sandbox};
use tempfile::TempDir;

use super::guest::World;
use super::{check_told, scratch};

/// Larger files take a second each and tell nothing new.
const FILE_BYTES_MAX: usize = 512 << 10;
/// Once in so many edited files it is a guest that was built.
const GUESTS_SELDOM: u8 = 32;
/// Of bytes that are changed in a file that was good.
const EDITS_MAX: usize = 16;

struct Stage {
    sandbox: Sandbox,
    /// For compiled code.
    cache: TempDir,
    shapes: Vec<Shape>,
    /// Files that are good: a module and a component of each shape, and the guests that were built.
    good: Vec<Vec<u8>>,
}

/// A world and a core module that fits it.
struct Shape {
    world: World,
    module: Vec<u8>,
}

static STAGE: LazyLock<Stage> = LazyLock::new(|| {
    let cache = scratch();
    let sandbox = Sandbox::new(2, cache.path()).expect("there is a sandbox");
    let shapes: Vec<Shape> = [
        "include rowmill:jobs/batch-processor@0.1.0;",
        "include rowmill:jobs/slow-query-processor@0.1.0;",
        "include rowmill:jobs/file-checker@0.1.0;",
        "include rowmill:jobs/batch-processor@0.1.0; import wasi:http/outgoing-handler@0.2.12; import wasi:keyvalue/store@0.2.0-draft;",
        "import wasi:random/random@0.2.12; export wasi:random/random@0.2.12; export run: func(text: string) -> list<string>;",
    ]
    .iter()
    .map(|items| {
        let world = World::new(items);
        let module = world.module(&world.imports(), "", &BTreeMap::new());
        Shape { world, module }
    })
    .collect();
    let modules = shapes.iter().map(|shape| shape.carrying(shape.module.clone()));
    Stage { sandbox, cache, good: modules.chain(guests()).collect(), shapes }
});

impl Shape {
    fn carrying(&self, mut module: Vec<u8>) -> Vec<u8> {
        self.world.embed(&mut module);
        module
    }
}

/// The guests that were built, smallest first.
fn guests() -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/guests");
    let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut guests: Vec<Vec<u8>> = files.filter_map(|file| fs::read(file).ok()).filter(|guest| guest.len() <= FILE_BYTES_MAX).collect();
    guests.sort_by_key(Vec::len);
    guests
}

/// Makes a file of these bytes and loads it, as a processor and as a checker of files.
pub fn check(input: &[u8]) {
    let stage = &*STAGE;
    let Ok(file) = file(stage, &mut Unstructured::new(input)) else { return };
    if file.len() > FILE_BYTES_MAX {
        return;
    }
    match stage.sandbox.load(&file) {
        Ok(processor) => {
            let interface = processor.interface();
            interface.imports.iter().chain(&interface.exports).for_each(|name| check_name(name));
            if let Err(error) = processor.check_grants("app", &Grants::default()) {
                check_refusal(error);
            }
        }
        Err(error) => check_refusal(error),
    }
    if let Err(error) = stage.sandbox.load_checker(&file) {
        check_refusal(error);
    }
    forget(stage);
}

/// Files that an upload may be mutated from, for a corpus.
pub fn seeds() -> Vec<Vec<u8>> {
    let stage = &*STAGE;
    let as_it_is = stage.good.iter().take(stage.shapes.len()).map(|file| [&[0], &file[..]].concat());
    let edited = (0..32).map(|seed| [vec![3], super::bytes(100 + seed, 60)].concat());
    let smith = (1..3).flat_map(|kind| (0..16).map(move |seed| [vec![kind], super::bytes(seed, 600)].concat()));
    as_it_is.chain(edited).chain(smith).collect()
}

fn file(stage: &Stage, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    match u.arbitrary::<u8>()? % 4 {
        0 => Ok(u.bytes(u.len())?.to_vec()),
        1 => {
            let shape = u.choose(&stage.shapes)?;
            let module_shape = u.ratio(3, 4)?.then(|| shape.module.clone());
            let carries = u.ratio(7, 8)?;
            let module = wasm_smith::Module::new(wasm_smith::Config { module_shape, ..config(u)? }, u)?.to_bytes();
            Ok(if carries { shape.carrying(module) } else { module })
        }
        2 => Ok(wasm_smith::Component::new(config(u)?, u)?.to_bytes()),
        _ => {
            let small = &stage.good[..stage.shapes.len()];
            // Those that were built take a second each to be compiled.
            let file = if u.ratio(1, GUESTS_SELDOM)? { u.choose(&stage.good)? } else { u.choose(small)? };
            edited(file.clone(), u)
        }
    }
}

/// Mostly with what the engine takes.
fn config(u: &mut Unstructured<'_>) -> Result<wasm_smith::Config> {
    if u.ratio(1, 8)? {
        return wasm_smith::Config::arbitrary(u);
    }
    Ok(wasm_smith::Config {
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        relaxed_simd_enabled: false,
        tail_call_enabled: false,
        threads_enabled: false,
        max_memories: 1,
        max_instructions: 60,
        max_memory32_bytes: 1 << 24,
        ..wasm_smith::Config::default()
    })
}

/// A good file with some bytes changed, inserted or left out.
fn edited(mut file: Vec<u8>, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    for _ in 0..u.int_in_range(0..=EDITS_MAX)? {
        // What is not code is at the beginning and the end.
        let at = match u.int_in_range(0..=2)? {
            0 => u.choose_index(file.len().max(1))?,
            1 => u.choose_index(file.len().clamp(1, 2_000))?,
            _ => file.len().saturating_sub(1 + u.choose_index(file.len().clamp(1, 4_000))?),
        };
        match u.int_in_range(0..=3)? {
            _ if at >= file.len() => {}
            0 => file[at] = u.arbitrary()?,
            1 => file.insert(at, u.arbitrary()?),
            2 => drop(file.remove(at)),
            _ => file[at] ^= 1 << u.int_in_range(0..=7)?,
        }
    }
    if u.ratio(1, 16)? {
        file.truncate(u.choose_index(file.len() + 1)?);
    }
    Ok(file)
}

fn check_refusal(error: LoadError) {
    // Whatever the file is, it is the file's.
    assert!(!error.may_pass(), "{error}");
    check_told(&format!("{:#}", anyhow::Error::new(error)));
}

fn check_name(name: &str) {
    assert!(!name.chars().any(char::is_control), "a name that is not printable: {name:?}");
}

/// Compiled code of millions of files is not kept.
fn forget(stage: &Stage) {
    for entry in fs::read_dir(stage.cache.path()).expect("the cache is there").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "cwasm") {
            fs::remove_file(entry.path()).expect("nobody else removes it");
        }
    }
}
