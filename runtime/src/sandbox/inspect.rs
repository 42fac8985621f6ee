//! The first look at an upload, before anything else touches it: whether it is WebAssembly at all, and no larger in any direction than what a compiler gets
//! through. It reads the bytes once, keeps numbers alone, and follows nothing that they point to.

use wasmparser::{FunctionBody, Operator, Parser, Payload};

use super::LoadError;

const MAGIC: &[u8] = b"\0asm";
/// The bytes behind the magic: the version, and the layer in its upper half.
const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];
/// How many bytes of a file are shown when it is not WebAssembly.
const SHOWN_BYTES: usize = 24;

/// Whole interpreters with their libraries have some tens of thousands.
const FUNCTIONS_MAX: u64 = 200_000;
/// The largest functions of interpreters have some hundred thousand bytes. Compiling one takes more than twice the time for twice its size, in one thread.
const FUNCTION_BYTES_MAX: u64 = 2 << 20;
/// Of one function. Compilers of other languages reuse them and stay under a few thousand, even without optimisation. What is kept of each local at each branch makes many of them dear.
const LOCALS_MAX: u64 = 20_000;
/// Blocks and ways out of them, of one function; each is a place where registers are assigned anew. The largest loops of interpreters have some thousands.
const BRANCHES_MAX: u64 = 50_000;
/// Blocks in blocks. A switch over many cases is one block for each of them, within each other.
const NESTING_MAX: u64 = 5_000;
/// Of all modules and components together. Libraries that are linked when they start import and export each of their symbols.
const IMPORTS_MAX: u64 = 100_000;
const EXPORTS_MAX: u64 = 100_000;
/// The same libraries have one for each address that they share. A global takes 16 bytes of its instance.
const GLOBALS_MAX: u64 = 100_000;
/// Types, aliases and instances are cheap one by one; interpreters have some thousands.
const DEFINITIONS_MAX: u64 = 200_000;
/// Pieces of data and of tables.
const SEGMENTS_MAX: u64 = 100_000;
/// Of the whole file. An instance may have fewer: see the pool (`engine.rs`), which tells how many.
const MEMORIES_MAX: u64 = 100;
const TABLES_MAX: u64 = 1_000;
/// Modules and components in a component: those of Python are some dozens.
const MODULES_MAX: u64 = 500;
/// Components in components. Tools that compose components go two or three levels deep.
const DEPTH_MAX: u64 = 10;

/// What a file begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Module,
    Component,
}

/// Which of the two this is.
pub(super) fn layer_of(file: &[u8]) -> Result<Layer, LoadError> {
    match file.strip_prefix(MAGIC).and_then(|rest| rest.first_chunk::<4>()) {
        Some(&COMPONENT) => Ok(Layer::Component),
        Some(&CORE_MODULE) => Ok(Layer::Module),
        _ => Err(LoadError::NotWasm { begins: describe(file) }),
    }
}

/// Counts what is in a file, and refuses it at the first number that is too large.
pub(super) fn inspect(file: &[u8], bytes_max: u64) -> Result<Layer, LoadError> {
    check_size(file.len(), bytes_max)?;
    let layer = layer_of(file)?;
    let invalid = |error: wasmparser::BinaryReaderError| LoadError::Invalid(error.to_string());
    let mut counts = Counts::default();
    for payload in Parser::new(0).parse_all(file) {
        counts.count(payload.map_err(invalid)?)?;
    }
    Ok(layer)
}

pub(super) fn check_size(bytes: usize, bytes_max: u64) -> Result<(), LoadError> {
    within("bytes", bytes as u64, bytes_max)
}

#[derive(Default)]
struct Counts {
    functions: u64,
    imports: u64,
    exports: u64,
    globals: u64,
    definitions: u64,
    segments: u64,
    memories: u64,
    tables: u64,
    modules: u64,
    /// Open modules and components.
    depth: u64,
}

impl Counts {
    fn count(&mut self, payload: Payload<'_>) -> Result<(), LoadError> {
        match payload {
            Payload::Version { .. } => {
                self.depth += 1;
                within("levels of components in components", self.depth, DEPTH_MAX)
            }
            Payload::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(())
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => add(&mut self.modules, 1, "modules and components", MODULES_MAX),
            // How many functions a section announces, and how many of them come, are compared by whoever validates it.
            Payload::FunctionSection(section) => add(&mut self.functions, section.count().into(), "functions", FUNCTIONS_MAX),
            Payload::CodeSectionEntry(body) => check_function(&body),
            // Imports may be written in groups.
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    import.map_err(|error| LoadError::Invalid(error.to_string()))?;
                    add(&mut self.imports, 1, "imports", IMPORTS_MAX)?;
                }
                Ok(())
            }
            Payload::ComponentImportSection(section) => add(&mut self.imports, section.count().into(), "imports", IMPORTS_MAX),
            Payload::ExportSection(section) => add(&mut self.exports, section.count().into(), "exports", EXPORTS_MAX),
            Payload::ComponentExportSection(section) => add(&mut self.exports, section.count().into(), "exports", EXPORTS_MAX),
            Payload::MemorySection(section) => add(&mut self.memories, section.count().into(), "memories", MEMORIES_MAX),
            Payload::TableSection(section) => add(&mut self.tables, section.count().into(), "tables", TABLES_MAX),
            Payload::GlobalSection(section) => add(&mut self.globals, section.count().into(), "globals", GLOBALS_MAX),
            Payload::ElementSection(section) => self.segments(section.count()),
            Payload::DataSection(section) => self.segments(section.count()),
            Payload::TypeSection(section) => self.definitions(section.count()),
            Payload::TagSection(section) => self.definitions(section.count()),
            Payload::InstanceSection(section) => self.definitions(section.count()),
            Payload::CoreTypeSection(section) => self.definitions(section.count()),
            Payload::ComponentInstanceSection(section) => self.definitions(section.count()),
            Payload::ComponentAliasSection(section) => self.definitions(section.count()),
            Payload::ComponentTypeSection(section) => self.definitions(section.count()),
            Payload::ComponentCanonicalSection(section) => self.definitions(section.count()),
            _ => Ok(()),
        }
    }

    fn definitions(&mut self, count: u32) -> Result<(), LoadError> {
        add(&mut self.definitions, count.into(), "types, aliases and instances", DEFINITIONS_MAX)
    }

    fn segments(&mut self, count: u32) -> Result<(), LoadError> {
        add(&mut self.segments, count.into(), "segments of data and tables", SEGMENTS_MAX)
    }
}

fn check_function(body: &FunctionBody<'_>) -> Result<(), LoadError> {
    let invalid = |error: wasmparser::BinaryReaderError| LoadError::Invalid(error.to_string());
    within("bytes in one function", (body.range().end - body.range().start) as u64, FUNCTION_BYTES_MAX)?;
    let mut locals = 0;
    for group in body.get_locals_reader().map_err(invalid)? {
        let (count, _) = group.map_err(invalid)?;
        add(&mut locals, count.into(), "locals in one function", LOCALS_MAX)?;
    }
    let (mut branches, mut nesting) = (0, 0);
    for operator in body.get_operators_reader().map_err(invalid)? {
        let ways = match operator.map_err(invalid)? {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                add(&mut nesting, 1, "blocks within each other", NESTING_MAX)?;
                1
            }
            Operator::End => {
                nesting = nesting.saturating_sub(1);
                0
            }
            Operator::Br { .. } | Operator::BrIf { .. } | Operator::Else | Operator::Return => 1,
            Operator::BrTable { targets } => u64::from(targets.len()),
            _ => 0,
        };
        add(&mut branches, ways, "blocks and branches in one function", BRANCHES_MAX)?;
    }
    Ok(())
}

fn add(count: &mut u64, more: u64, what: &'static str, limit: u64) -> Result<(), LoadError> {
    *count = count.saturating_add(more);
    within(what, *count, limit)
}

fn within(what: &'static str, found: u64, limit: u64) -> Result<(), LoadError> {
    if found <= limit { Ok(()) } else { Err(LoadError::TooLarge { what, found, limit }) }
}

fn describe(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "is empty".to_owned();
    }
    let start = &bytes[..bytes.len().min(SHOWN_BYTES)];
    // A character that does not fit is left out.
    let text = start.utf8_chunks().next().filter(|text| text.valid().len() + 3 >= start.len()).map(|text| text.valid());
    match text {
        Some(text) if !text.chars().any(|character| character.is_control() && !character.is_ascii_whitespace()) => {
            format!("begins with the text {text:?}")
        }
        _ => format!("begins with the bytes {}", start.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")),
    }
}
