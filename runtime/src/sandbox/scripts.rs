//! Reads an exception out of the words of an interpreter of Python or JavaScript, without the part that is about the interpreter.

use super::places::short_path;

/// Frames of a script that are shown, at most.
const FRAMES_MAX: usize = 8;
/// A longer text of an exception is cut.
const TEXT_BYTES_MAX: usize = 1_000;
/// Where componentize-py keeps Python's own library.
const PYTHON_LIBRARY: [&str; 2] = ["/python/", "/bundled/"];
/// Modules of guest-sdk that check what a script returns.
const SDK_MODULES: [&str; 2] = ["rowmill.py", "rowmill.js"];
const RETURNED: &str = "what it returned or raised does not fit wit/jobs.wit";

/// An exception that a script did not catch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Uncaught {
    pub text: String,
    /// Functions of the script with file and line, innermost first.
    pub frames: Vec<String>,
}

/// Reads the end of a guest's stderr. None if no interpreter said it.
pub(super) fn uncaught(said: &str) -> Option<Uncaught> {
    let mut uncaught = traceback(said).or_else(|| quick_js(said)).or_else(|| wrong_shape(said))?;
    if uncaught.text.len() > TEXT_BYTES_MAX {
        uncaught.text.truncate(uncaught.text.floor_char_boundary(TEXT_BYTES_MAX));
        uncaught.text.push('…');
    }
    Some(uncaught)
}

/// The last traceback of componentize-py: of chained exceptions the last one ended the call.
fn traceback(said: &str) -> Option<Uncaught> {
    let (said, panic) = said.rsplit_once("\n\nthread '")?;
    if !panic.contains("Python function threw an unexpected exception") {
        return None;
    }
    let last = said.rsplit_once("Traceback (most recent call last):").map_or(said, |(_, last)| last);
    let places = last.lines().filter_map(python_place).filter(|(file, _)| !is_sdk_module(file));
    let places: Vec<(&str, String)> = places.collect();
    // A traceback whose beginning was cut begins in the middle of a line.
    let text = last.lines().skip_while(|line| !line.trim_start().starts_with("File \"")).skip_while(|line| line.starts_with(' '));
    let text = text.collect::<Vec<_>>().join("\n").trim().to_owned();
    let own: Vec<String> = places.iter().filter(|(file, _)| !is_python_library(file)).map(|(_, shown)| shown.clone()).collect();
    let mut frames = if own.is_empty() { places.into_iter().map(|(_, shown)| shown).collect() } else { own };
    frames.reverse();
    frames.truncate(FRAMES_MAX);
    (!text.is_empty()).then_some(Uncaught { text, frames })
}

fn is_sdk_module(file: &str) -> bool {
    SDK_MODULES.iter().any(|helper| file.rsplit('/').next() == Some(helper))
}

fn is_python_library(file: &str) -> bool {
    PYTHON_LIBRARY.iter().any(|directory| file.starts_with(directory)) || file.starts_with('<')
}

/// Reads `  File "/0/app.py", line 27, in process_row`.
fn python_place(line: &str) -> Option<(&str, String)> {
    let (file, rest) = line.trim_start().strip_prefix("File \"")?.split_once("\", line ")?;
    let (number, function) = rest.split_once(", in ").unwrap_or((rest, "<module>"));
    Some((file, format!("{function} ({}:{number})", python_path(file))))
}

/// Modules of the build's directories are mounted as `/0`, `/1` …
fn python_path(file: &str) -> &str {
    let mounted = file.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    match mounted {
        Some((directory, rest)) if directory.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => short_path(file),
    }
}

/// An exception as componentize-qjs says it, in Rust's debug form.
fn quick_js(said: &str) -> Option<Uncaught> {
    let (_, exception) = said.rsplit_once("Failed to call '")?;
    let (_, exception) = exception.split_once("Exception { message: ")?;
    let (message, exception) = match exception.strip_prefix("Some(\"") {
        Some(text) => unescaped(text)?,
        None => ("an exception without a text".to_owned(), exception),
    };
    let stack = exception.split_once("stack: Some(\"").and_then(|(_, text)| unescaped(text)).map(|(stack, _)| stack).unwrap_or_default();
    let frames = stack.lines().filter_map(script_place).take(FRAMES_MAX).collect();
    Some(Uncaught { text: message, frames })
}

/// Reads `    at index (/app.js:27:29)`. Functions of the engine have no line.
fn script_place(line: &str) -> Option<String> {
    let (function, place) = match line.trim().strip_prefix("at ")?.rsplit_once(" (") {
        Some((function, place)) => (function, place.strip_suffix(')')?),
        None => ("<module>", line.trim().strip_prefix("at ")?),
    };
    let (place, _column) = place.rsplit_once(':')?;
    let (file, number) = place.rsplit_once(':')?;
    (!file.starts_with('<') && !is_sdk_module(file)).then(|| format!("{function} ({}:{number})", file.trim_start_matches('/')))
}

/// A text in Rust's debug form, up to its closing quote, and what is behind it.
fn unescaped(text: &str) -> Option<(String, &str)> {
    let mut plain = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((plain, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => plain.push('\n'),
                't' => plain.push('\t'),
                'r' => plain.push('\r'),
                'u' => {
                    let code: String = characters.by_ref().map(|(_, digit)| digit).skip(1).take_while(|&digit| digit != '}').take(6).collect();
                    plain.extend(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32));
                }
                other => plain.push(other),
            },
            other => plain.push(other),
        }
    }
    None
}

/// A value that has another shape than `wit/jobs.wit` says: the interpreter's runtime panics when it converts it, after the script's function has returned.
fn wrong_shape(said: &str) -> Option<Uncaught> {
    let begin = said.rfind("panicked at ")?;
    let (place, text) = said[begin..].strip_prefix("panicked at ")?.split_once(":\n")?;
    let text = text.split_once("\nnote: run with `RUST_BACKTRACE").map_or(text, |(text, _)| text).trim();
    if place.starts_with("runtime/src/lib.rs:") {
        let exception = text.split_once(">, value: ").map(|(_, rest)| rest.rsplit_once(", traceback").map_or(rest, |(value, _)| value))?;
        let (kind, value) = exception.strip_suffix(')').and_then(|exception| exception.split_once('(')).unwrap_or((exception, ""));
        // A variant is found by the class of its case.
        let found = if kind == "KeyError" { value.strip_prefix("<class '").and_then(|class| class.strip_suffix("'>")) } else { None };
        let text = match found {
            Some(class) => format!("{RETURNED}: a case of a variant is needed, such as Failure_Permanent(\"…\"), and this is a {class}"),
            None => format!("{RETURNED}: {kind}: {}", value.trim_matches('"')),
        };
        return Some(Uncaught { text, frames: Vec::new() });
    }
    if place.starts_with("crates/runtime/src/call.rs:") {
        let text = if text.starts_with("invalid variant: Error(FromJs") {
            "a case of a variant is needed, such as { tag: \"permanent\", val: \"…\" }".to_owned()
        } else if let Some((_, exception)) = text.split_once("Exception { message: Some(\"") {
            unescaped(exception)?.0
        } else if let Some((expected, found)) = text.split_once(": FromJs { from: \"") {
            format!("{expected}, and this is of type {}", found.split('"').next().unwrap_or_default())
        } else {
            text.to_owned()
        };
        return Some(Uncaught { text: format!("{RETURNED}: {text}"), frames: Vec::new() });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PYTHON_PANIC: &str = "\n\nthread '<unnamed>' (1) panicked at runtime/src/lib.rs:1293:29:\nPython function threw an unexpected exception\nnote: run with \
                                `RUST_BACKTRACE=1` environment variable to display a backtrace";

    fn told(said: &str) -> (String, Vec<String>) {
        let Uncaught { text, frames } = uncaught(said).unwrap();
        (text, frames)
    }

    #[test]
    fn a_traceback_is_its_exception_and_the_authors_functions() {
        let said = format!(
            "Traceback (most recent call last):\n  File \"/0/app.py\", line 3, in outer\nKeyError: 'x'\n\nDuring handling of the above exception, another exception \
             occurred:\n\nTraceback (most recent call last):\n  File \"/0/app.py\", line 27, in process_row\n  File \"/0/bank/rates.py\", line 4, in rate\n    \
             a(b)\n    ^^^^\n  File \"/python/json/decoder.py\", line 363, in raw_decode\n  \
             File \"/1/rowmill.py\", line 90, in checked\nValueError: two\nlines{PYTHON_PANIC}"
        );
        assert_eq!(
            told(&said),
            ("ValueError: two\nlines".to_owned(), vec!["rate (bank/rates.py:4)".to_owned(), "process_row (app.py:27)".to_owned()])
        );
    }

    #[test]
    fn a_traceback_that_was_cut_keeps_its_end() {
        let deep = "  File \"/0/app.py\", line 82, in deep\n".repeat(20);
        let said = format!("e 82, in deep\n{deep}  [Previous line repeated 9 more times]\nRecursionError: too deep{PYTHON_PANIC}");
        let (text, frames) = told(&said);
        assert_eq!((text.as_str(), frames), ("RecursionError: too deep", vec!["deep (app.py:82)".to_owned(); FRAMES_MAX]));
    }

    #[test]
    fn an_exception_of_quick_js_is_its_text_and_its_functions() {
        let said = "thread '<unnamed>' (1) panicked at crates/runtime/src/interpreter.rs:51:31:\nFailed to call 'processRow': Value(Exception(\nException { message: \
                    Some(\"say \\\"no\\\" in \\u{1f600}\"), stack: Some(\"    at <input>:1:1\\n    at parse (native)\\n    at read (/app.js:62:31)\\n    at processRow \
                    (/lib/rows.js:15:36)\\n\") })\n)\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace";
        assert_eq!(told(said), ("say \"no\" in 😀".to_owned(), vec!["read (app.js:62)".to_owned(), "processRow (lib/rows.js:15)".to_owned()]));
    }

    #[test]
    fn a_wrong_shape_is_told_without_the_runtimes_panic() {
        let python = |line: u32, exception: &str| {
            let said = format!(
                "thread '<unnamed>' (1) panicked at runtime/src/lib.rs:{line}:18:\ncalled `Result::unwrap()` on an `Err` value: PyErr {{ type: <class 'X'>, value: \
                 {exception}, traceback: None }}\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace"
            );
            told(&said).0
        };
        assert!(
            python(1640, "KeyError(<class 'str'>)").ends_with(": a case of a variant is needed, such as Failure_Permanent(\"…\"), and this is a str")
        );
        assert!(
            python(1494, "TypeError(\"'dict' object is not an instance of 'str'\")")
                .ends_with(": TypeError: 'dict' object is not an instance of 'str'")
        );
        let script = |text: &str| {
            told(&format!("thread '<unnamed>' (1) panicked at crates/runtime/src/call.rs:1:1:\n{text}\nnote: run with `RUST_BACKTRACE=1`")).0
        };
        for (text, end) in [
            ("invalid variant: Error(FromJs { from: \"string\", to: \"variant\", message: None })", "such as { tag: \"permanent\", val: \"…\" }"),
            ("invalid variant: Exception(Exception { message: Some(\"unknown variant tag: x\"), stack: Some(\"\") })", ": unknown variant tag: x"),
            ("expected string: FromJs { from: \"object\", to: \"string\", message: None }", ": expected string, and this is of type object"),
            ("unknown enum case: ok", "wit/jobs.wit: unknown enum case: ok"),
        ] {
            assert!(script(text).ends_with(end), "{}", script(text));
        }
    }

    #[test]
    fn what_no_interpreter_said_is_left_alone() {
        for said in [
            "",
            "panicked at src/lib.rs:1:2:\nno",
            "Traceback (most recent call last):",
            "thread 'main' panicked at runtime/src/lib.rs:1:1:\nno value",
        ] {
            assert_eq!(uncaught(said), None, "{said}");
        }
    }
}
