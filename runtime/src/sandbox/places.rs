//! Where in a guest's code a call was stopped: functions, files and lines.

use std::fmt::Write as _;

use wasmtime::{Error, WasmBacktrace};

/// Frames that are shown, at most.
const FRAMES_MAX: usize = 8;
/// A longer name of a function is cut: the guest chose it.
const NAME_BYTES_MAX: usize = 300;
/// A longer path is cut at its beginning.
const FILE_BYTES_MAX: usize = 100;
/// Functions of language runtimes and of our SDK, which say nothing about the guest.
const LIBRARY_NAMES: [&str; 11] =
    ["rowmill_guest::", "core::", "std::", "alloc::", "dlmalloc::", "__rust", "__rdl_", "__rg_", "rust_panic", "rust_begin_unwind", "cabi_realloc"];
/// The function of C's library that ends a program.
const ABORT: &str = "abort";
/// Parts of paths of the standard library and of our SDK.
const LIBRARY_FILES: [&str; 4] = ["/guest-sdk/src/", "/rustc/", "/rustlib/src/rust/library/", "/rust/deps/"];
/// Functions that run a guest's script. The stack of such an interpreter says nothing about the script.
const INTERPRETERS: [&str; 2] = ["_PyEval_EvalFrameDefault", "JS_CallInternal"];

/// A function on the stack, with a line of its source if the guest has line tables.
struct Frame {
    name: String,
    place: Option<(String, Option<u32>)>,
}

impl Frame {
    fn is_library(&self) -> bool {
        let name = self.name.trim_start_matches(['<', '&']);
        let in_library = |(file, _): &(String, Option<u32>)| LIBRARY_FILES.iter().any(|part| file.contains(part));
        name == ABORT || LIBRARY_NAMES.iter().any(|prefix| name.starts_with(prefix)) || self.place.as_ref().is_some_and(in_library)
    }

    fn shown(&self) -> String {
        let mut shown = self.name[..self.name.floor_char_boundary(NAME_BYTES_MAX)].to_owned();
        if let Some((file, line)) = &self.place {
            let file = short_path(file);
            let file = &file[file.ceil_char_boundary(file.len().saturating_sub(FILE_BYTES_MAX))..];
            match line {
                Some(line) => write!(shown, " ({file}:{line})").expect("a text takes more text"),
                None => write!(shown, " ({file})").expect("a text takes more text"),
            }
        }
        shown
    }
}

/// The functions that were on the stack when an error stopped the guest, innermost first, at most
/// [`FRAMES_MAX`]. Those of the language's own library and of our SDK are left out, unless there are no others;
/// of a guest that interprets a script there are none.
pub(super) fn frames_of(error: &Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let mut frames = Vec::new();
    for frame in backtrace.frames() {
        let function = frame.func_name().map(demangled);
        if function.as_deref().is_some_and(|name| INTERPRETERS.contains(&name)) {
            return Vec::new();
        }
        let symbols = frame.symbols();
        for (at, symbol) in symbols.iter().enumerate() {
            // The last one is the function itself, whose full name the module has; those before it were inlined into it.
            let own = if at + 1 == symbols.len() { function.clone() } else { None };
            let Some(name) = own.or_else(|| symbol.name().map(demangled)) else { continue };
            // Line 0 is code that the compiler made.
            let line = symbol.line().filter(|&line| line > 0);
            frames.push(Frame { name, place: symbol.file().map(|file| (file.to_owned(), line)) });
        }
        if symbols.is_empty()
            && let Some(name) = function
        {
            frames.push(Frame { name, place: None });
        }
    }
    if frames.iter().any(|frame| !frame.is_library()) {
        frames.retain(|frame| !frame.is_library());
    }
    frames.iter().take(FRAMES_MAX).map(Frame::shown).collect()
}

fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

/// A path of the author's machine without what is that machine's alone: from the directory above
/// the last `src`, or its last two parts. A dependency begins with its name and version, the
/// standard library with its crate.
pub(super) fn short_path(path: &str) -> &str {
    for part in ["/rustlib/src/rust/library/", "/library/", "/rust/deps/"] {
        if let Some((before, rest)) = path.split_once(part)
            && (part != "/library/" || before.starts_with("/rustc/"))
        {
            return rest;
        }
    }
    if let Some((_, rest)) = path.split_once("/registry/src/")
        && let Some((_, rest)) = rest.split_once('/')
    {
        return rest;
    }
    let is_absolute = path.starts_with('/') || path.get(1..3).is_some_and(|drive| drive == ":\\" || drive == ":/");
    if !is_absolute {
        return path;
    }
    let is_separator = |character: char| matches!(character, '/' | '\\');
    let above = path.rfind("/src/").or_else(|| path.rfind("\\src\\")).map(|at| &path[..at]);
    let begin = match above {
        Some(above) => above.rfind(is_separator),
        None => path.rfind(is_separator).and_then(|at| path[..at].rfind(is_separator)),
    };
    begin.map_or(path, |at| &path[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_what_is_the_authors_machines_alone() {
        for (path, short) in [
            ("/home/ann/work/fees/src/lib.rs", "fees/src/lib.rs"),
            ("/home/ann/src/fees/src/tax/rates.rs", "fees/src/tax/rates.rs"),
            ("C:\\Users\\ann\\fees\\src\\lib.rs", "fees\\src\\lib.rs"),
            ("src/lib.rs", "src/lib.rs"),
            ("/home/ann/fees/main.go", "fees/main.go"),
            ("/fees.c", "/fees.c"),
            ("/home/ann/.cargo/registry/src/mirror-0123456789abcdef/serde_json-1.0.149/src/de.rs", "serde_json-1.0.149/src/de.rs"),
            ("/rustc/ed61e7d7e242494fb7057f2657300d9e77bb4fcb/library/core/src/option.rs", "core/src/option.rs"),
            ("/home/ann/.rustup/toolchains/x/lib/rustlib/src/rust/library/alloc/src/vec/mod.rs", "alloc/src/vec/mod.rs"),
            ("/rust/deps/dlmalloc-0.2.10/src/dlmalloc.rs", "dlmalloc-0.2.10/src/dlmalloc.rs"),
        ] {
            assert_eq!(short_path(path), short);
        }
    }

    #[test]
    fn a_function_whose_name_begins_like_one_of_a_library_is_the_authors() {
        let is_library = |name: &str| Frame { name: name.to_owned(), place: None }.is_library();
        assert!(is_library("abort") && is_library("core::panicking::panic"));
        assert!(!is_library("abort_payment") && !is_library("corel::draw"));
    }

    #[test]
    fn a_frame_is_bounded() {
        let frame = Frame { name: "ä".repeat(5_000), place: Some((format!("/x/{}/src/lib.rs", "y".repeat(5_000)), Some(u32::MAX))) };
        let shown = frame.shown();
        assert_eq!(shown.len(), NAME_BYTES_MAX + " (".len() + FILE_BYTES_MAX + ":4294967295)".len());
        assert!(shown.ends_with("y/src/lib.rs:4294967295)"), "{shown}");
    }
}
