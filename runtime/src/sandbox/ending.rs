//! From what wasmtime and the guest return to an [`Ending`].

use std::time::Duration;

use wasmtime::{Error, Trap};
use wasmtime_wasi::I32Exit;

use super::bindings::types;
use super::limiter::{OverMemory, SecondMemory};
use super::log::RowLog;
use super::mask::Masks;
use super::places::{frames_of, short_path};
use super::scripts::{Uncaught, uncaught};
use crate::model::{Answer, Ending, JsonText, Limits, Message, Piece};

/// A longer reason of a failure is cut, with a mark: it is stored with each row that it ends.
const REASON_BYTES_MAX: usize = 8 << 10;
/// The largest id of a message. A language with signed numbers passes -1 as 4294967295.
const MESSAGE_ID_MAX: u32 = i32::MAX.unsigned_abs();
/// Bytes of an output that is not JSON which its error shows, at most.
const BEGIN_BYTES: usize = 80;
/// Bytes of the guest's last words that explain a trap.
const LAST_WORDS_SHOWN_BYTES: usize = 1_000;
/// A file name's length at most, in characters.
const FILE_NAME_MAX: usize = 128;
/// What the host did for the guest came to a panic, which went no further.
#[derive(Debug, thiserror::Error)]
#[error("the host failed in what the guest asked for; its log says more")]
pub(super) struct HostPanic;

/// What the guest returned.
pub(super) fn ending_of_return(returned: Result<types::Outcome, types::Failure>, limits: &Limits, masks: &Masks) -> Ending {
    match returned {
        Ok(outcome) => {
            let status = outcome.status;
            match check_answer(outcome, limits, masks) {
                Ok(answer) if status == types::RowStatus::Success => Ending::Succeeded(answer),
                Ok(answer) => Ending::Failed(answer),
                Err(reason) => Ending::BadOutput { reason },
            }
        }
        Err(failure) => ending_of_failure(failure, masks),
    }
}

pub(super) fn ending_of_failure(failure: types::Failure, masks: &Masks) -> Ending {
    let cut = |reason| cut(masks.hide(reason));
    match failure {
        types::Failure::Permanent(reason) => Ending::Permanent { reason: cut(reason) },
        types::Failure::Retry(hint) => Ending::Retry { reason: cut(hint.reason), after: hint.after_ms.map(Duration::from_millis) },
        types::Failure::AbortBatch(reason) => Ending::AbortBatch { reason: cut(reason) },
    }
}

/// What a guest's `init` returned instead of success.
pub(super) fn ending_of_init(reason: String, masks: &Masks) -> Ending {
    Ending::CannotStart { reason: format!("init: {}", cut(masks.hide(reason))) }
}

pub(super) fn cut(mut reason: String) -> String {
    let kept = reason.floor_char_boundary(REASON_BYTES_MAX);
    if kept < reason.len() {
        let more = reason.len() - kept;
        reason.truncate(kept);
        reason.push_str(&format!(" [cut: {more} more bytes]"));
    }
    reason
}

fn check_answer(outcome: types::Outcome, limits: &Limits, masks: &Masks) -> Result<Answer, String> {
    let count = |what: &str, has: usize, limit: u32| {
        if has > limit as usize { Err(format!("it returned {has} {what}, the limit is {limit}")) } else { Ok(()) }
    };
    count("messages", outcome.messages.len(), limits.messages)?;
    count("pieces of output files", outcome.pieces.len(), limits.pieces)?;
    outcome.messages.iter().try_for_each(check_message_id)?;
    let text = |message: &types::Message| {
        message.code.len() + message.field.as_ref().map_or(0, String::len) + message.values.iter().map(String::len).sum::<usize>()
    };
    let bytes = outcome.output.len()
        + outcome.messages.iter().map(text).sum::<usize>()
        + outcome.pieces.iter().map(|piece| piece.file.len() + piece.text.len()).sum::<usize>();
    if bytes as u64 > limits.output_bytes {
        return Err(format!("it returned {bytes} bytes of output, messages and pieces, the limit is {}", limits.output_bytes));
    }
    let outcome = without_secrets(outcome, masks);
    for piece in &outcome.pieces {
        check_file_name("an output file", &piece.file)?;
    }
    let output = if outcome.output.is_empty() && outcome.status == types::RowStatus::Failed {
        None
    } else {
        // It shows no secret: those in the output were hidden above.
        let begins = begin_of(&outcome.output);
        Some(JsonText::check(outcome.output).map_err(|error| format!("its output is {error}; it begins with {begins}"))?.into_string())
    };
    let message = |message: types::Message| Message { id: message.id, code: message.code, field: message.field, values: message.values };
    let piece = |piece: types::Piece| Piece { file: piece.file, text: piece.text };
    Ok(Answer { output, messages: outcome.messages.into_iter().map(message).collect(), pieces: outcome.pieces.into_iter().map(piece).collect() })
}

/// The first bytes of a text, quoted, with its control characters as escapes.
fn begin_of(text: &str) -> String {
    let shown = &text[..text.floor_char_boundary(BEGIN_BYTES)];
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{more}")
}

/// Refuses an id that is negative in the guest's language.
pub(super) fn check_message_id(message: &types::Message) -> Result<(), String> {
    if message.id <= MESSAGE_ID_MAX {
        return Ok(());
    }
    let (id, negative) = (message.id, message.id.cast_signed());
    Err(format!("the id of a message is {id} ({negative} in JavaScript); an id is 0 to {MESSAGE_ID_MAX}"))
}

/// What is left must be good by itself: a secret that stood where a number should be leaves no JSON, and fails the row.
fn without_secrets(outcome: types::Outcome, masks: &Masks) -> types::Outcome {
    let message = |message: types::Message| types::Message {
        id: message.id,
        code: masks.hide(message.code),
        field: message.field.map(|field| masks.hide(field)),
        values: message.values.into_iter().map(|value| masks.hide(value)).collect(),
    };
    let piece = |piece: types::Piece| types::Piece { file: masks.hide(piece.file), text: masks.hide(piece.text) };
    types::Outcome {
        status: outcome.status,
        output: masks.hide(outcome.output),
        messages: outcome.messages.into_iter().map(message).collect(),
        pieces: outcome.pieces.into_iter().map(piece).collect(),
    }
}

/// Few characters are allowed, so that a name is the same on every system, looks like no other and leads nowhere.
pub(super) fn check_file_name(whose: &str, name: &str) -> Result<(), String> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
    if name.is_empty() || name.len() > FILE_NAME_MAX || name.starts_with('.') || !name.chars().all(allowed) {
        let shown: String = name.chars().take(FILE_NAME_MAX).collect();
        return Err(format!(
            "{shown:?} cannot be the name of {whose}: 1 to {FILE_NAME_MAX} ASCII letters, digits, '.', '-' and '_', not beginning with '.'"
        ));
    }
    Ok(())
}

/// Why a call did not return.
pub(super) fn ending_of_error(error: &Error, log: &RowLog, masks: &Masks, fuel_used: u64, fuel_limit: u64) -> Ending {
    if error.is::<HostPanic>() {
        return Ending::Trap { text: HostPanic.to_string(), frames: Vec::new() };
    }
    let frames = || frames_of(error);
    if let Some(over) = error.downcast_ref::<OverMemory>() {
        return Ending::Memory { needed_bytes: over.needed_bytes, limit_bytes: over.limit_bytes, frames: frames() };
    }
    if error.is::<SecondMemory>() {
        return Ending::Trap { text: SecondMemory.to_string(), frames: Vec::new() };
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Ending::Trap { text: with_last_words(&format!("the guest ended itself with exit status {}", exit.0), log), frames: frames() };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Ending::OutOfFuel { used: fuel_used, limit: fuel_limit, frames: frames() },
        // A panic or an abort: what the guest said tells more than the instruction.
        Some(Trap::UnreachableCodeReached) => ending_of_abort(log, frames),
        Some(trap) => Ending::Trap { text: with_last_words(&trap.to_string(), log), frames: frames() },
        // Not the guest's code, but what it handed over: text that is not UTF-8, or lists that grow beyond bounds when they are read.
        None => Ending::BadOutput { reason: masks.hide(format!("what it passed cannot be read: {}", error.root_cause())) },
    }
}

fn ending_of_abort(log: &RowLog, frames: impl FnOnce() -> Vec<String>) -> Ending {
    let Some(words) = log.last_words() else {
        return Ending::Trap { text: "it stopped itself (unreachable instruction) and said nothing".to_owned(), frames: frames() };
    };
    match uncaught(&words) {
        Some(Uncaught { text, frames }) => Ending::Trap { text, frames },
        None => Ending::Trap { text: cut_words(with_short_path(words)), frames: frames() },
    }
}

/// The text of a panic with the place in a dependency as frames show it.
fn with_short_path(words: String) -> String {
    let place = words.strip_prefix("panicked at ").and_then(|rest| rest.split_once(":\n"));
    match place {
        Some((place, text)) => format!("panicked at {}:\n{text}", short_path(place)),
        None => words,
    }
}

fn with_last_words(text: &str, log: &RowLog) -> String {
    match log.last_words() {
        Some(words) => format!("{text}; the guest's last words: {}", cut_words(words)),
        None => text.to_owned(),
    }
}

/// The end of a long text.
fn cut_words(mut words: String) -> String {
    words.drain(..words.ceil_char_boundary(words.len().saturating_sub(LAST_WORDS_SHOWN_BYTES)));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(output: &str, files: &[&str]) -> types::Outcome {
        types::Outcome {
            status: types::RowStatus::Success,
            output: output.to_owned(),
            messages: vec![],
            pieces: files.iter().map(|&file| types::Piece { file: file.to_owned(), text: "x".to_owned() }).collect(),
        }
    }

    #[test]
    fn names_that_lead_elsewhere_or_deceive_are_refused() {
        let long = "x".repeat(129);
        for name in ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", "pаypal.csv", ".hidden", " x", &long] {
            assert!(check_file_name("a file", name).is_err(), "{name:?}");
        }
        for name in ["a", "rejects.csv", "2026-11_x.PDF"] {
            assert!(check_file_name("a file", name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn empty_output_counts_as_an_empty_object() {
        let Ending::Succeeded(answer) = ending_of_return(Ok(outcome("", &[])), &Limits::default(), &Masks::default()) else { panic!() };
        assert_eq!(answer.output.as_deref(), Some("{}"));
    }

    #[test]
    fn a_negative_id_of_a_message_is_refused() {
        let message = |id| types::Message { id, code: "code".to_owned(), field: None, values: vec![] };
        let returned = |id| Ok(types::Outcome { messages: vec![message(1), message(id)], ..outcome("", &[]) });
        let ending = |id| ending_of_return(returned(id), &Limits::default(), &Masks::default());
        for id in [0, 1, 2_147_483_647] {
            let Ending::Succeeded(answer) = ending(id) else { panic!() };
            assert_eq!(answer.messages[1].id, id);
        }
        for (id, reason) in [
            (u32::MAX, "the id of a message is 4294967295 (-1 in JavaScript); an id is 0 to 2147483647"),
            (1 << 31, "the id of a message is 2147483648 (-2147483648 in JavaScript); an id is 0 to 2147483647"),
        ] {
            assert_eq!(ending(id), Ending::BadOutput { reason: reason.to_owned() });
        }
    }

    #[test]
    fn output_over_a_limit_says_how_much_over() {
        let limits = Limits { output_bytes: 10, pieces: 1, ..Limits::default() };
        let reason = |outcome| match ending_of_return(Ok(outcome), &limits, &Masks::default()) {
            Ending::BadOutput { reason } => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(outcome("[1,2,3,4,5]", &[])), "it returned 11 bytes of output, messages and pieces, the limit is 10");
        assert_eq!(reason(outcome("1", &["a", "b"])), "it returned 2 pieces of output files, the limit is 1");
        let nope = reason(outcome("{nope", &[]));
        assert!(nope.starts_with("its output is not valid JSON: ") && nope.ends_with("; it begins with \"{nope\""), "{nope}");
    }

    #[test]
    fn an_output_that_is_not_json_is_shown_as_far_as_its_first_80_bytes() {
        let reason = |output: &str| match ending_of_return(Ok(outcome(output, &[])), &Limits::default(), &Masks::default()) {
            Ending::BadOutput { reason } => reason,
            other => panic!("{other:?}"),
        };
        assert!(reason(&"x".repeat(81)).ends_with(&format!("; it begins with \"{}\"…", "x".repeat(80))));
        assert!(reason(&"x".repeat(80)).ends_with(&format!("; it begins with \"{}\"", "x".repeat(80))));
        // No character is cut, and none commands a terminal.
        assert!(reason(&format!("{}é", "x".repeat(79))).ends_with(&format!("; it begins with \"{}\"…", "x".repeat(79))));
        assert!(reason("\u{1b}[2J").ends_with("; it begins with \"\\u{1b}[2J\""));
    }
}
