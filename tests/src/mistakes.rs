//! The mistakes that authors make, and what a person is told of each: `make mistakes` and the suite go by this list, and docs/mistakes.md repeats it under a test.

use std::sync::Arc;
use std::time::Duration;

use rowmill::model::{Ending, JsonText, LeasedRow, Limits};
use rowmill::sandbox::{Processor, Session, SessionSpec};
use tokio_util::sync::CancellationToken;

use crate::running::batch;

/// A longer text is cut in the table.
const SHOWN_CHARACTERS: usize = 240;
/// Of the endless loop that has more fuel than time.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A language with the guest that makes its mistakes, each when a row names it.
#[derive(Clone, Copy, Debug)]
pub struct Language {
    pub name: &'static str,
    pub guest: &'static str,
    /// The author's file, as places name it.
    pub file: &'static str,
    /// Names, as rows have them, and what each is.
    pub mistakes: &'static [(&'static str, &'static str)],
}

/// An endless loop that is stopped by its deadline.
const LATE: &str = "endless_late";

pub const LANGUAGES: [Language; 3] = [
    Language {
        name: "Rust",
        guest: "mistakes",
        file: "mistakes/src/lib.rs",
        mistakes: &[
            ("index", "an index that the list does not have"),
            ("none_unwrap", "`unwrap` of `None`"),
            ("error_unwrap", "`unwrap` of an error"),
            ("overflow", "a sum that does not fit its type"),
            ("cast", "a negative number where none can be"),
            ("division", "a division by zero"),
            ("slice", "a slice beyond the end"),
            ("char_boundary", "a text cut inside a character"),
            ("map_key", "a key that the map does not have"),
            ("borrow_twice", "a `RefCell` borrowed twice"),
            ("assertion", "an assertion"),
            ("unfinished", "`unreachable!` reached"),
            ("recursion", "a recursion without end"),
            ("endless", "a loop that does not end for this input"),
            (LATE, "the same with more fuel than time"),
            ("endless_in_library", "an iterator that does not end"),
            ("memory", "a list that grows without end"),
            ("capacity", "a capacity that no memory has"),
            ("no_text", "a field that the row does not have"),
            ("zero_is_text", "a field of another type"),
        ],
    },
    Language {
        name: "Python",
        guest: "mistakes-python",
        file: "app.py",
        mistakes: &[
            ("index", "an index that the list does not have"),
            ("missing_field", "a field that the row does not have"),
            ("none", "a method of `None`"),
            ("division", "a division by zero"),
            ("number", "a text that is no number"),
            ("wrong_type", "a text and a number added"),
            ("unknown_name", "an unknown name"),
            ("unknown_attribute", "an unknown method"),
            ("assertion", "an assertion"),
            ("exception", "an exception with a text"),
            ("error_text", "`raise Err(\"text\")`"),
            ("recursion", "a recursion without end"),
            ("endless", "a loop that does not end for this input"),
            (LATE, "the same with more fuel than time"),
            ("memory", "a list that grows without end"),
            ("import_inside", "an import inside a function"),
            ("returns_nothing", "a function that returns nothing"),
            ("returns_text", "a text instead of an `Outcome`"),
            ("wrong_status", "a text as status"),
            ("wrong_output", "a dict as output"),
            ("wrong_message", "a text as the id of a message"),
            ("wrong_values", "a number among the values of a message"),
            ("wrong_piece", "a number as the text of a piece"),
            ("not_json", "output that is not JSON"),
        ],
    },
    Language {
        name: "JavaScript",
        guest: "mistakes-javascript",
        file: "app.js",
        mistakes: &[
            ("index", "an index that the list does not have"),
            ("missing_field", "a field that the row does not have"),
            ("null_value", "a property of `null`"),
            ("no_function", "an unknown method"),
            ("unknown_name", "an unknown name"),
            ("constant", "a constant that is assigned to"),
            ("big_number", "a `BigInt` and a number added"),
            ("no_list", "a number taken apart like a list"),
            ("wrong_json", "JSON that is none"),
            ("no_json_type", "a `BigInt` in `JSON.stringify`"),
            ("range", "a negative count"),
            ("exception", "an `Error` with a text"),
            ("exception_text", "`throw \"text\"`"),
            ("exception_object", "an unknown tag of a failure"),
            ("recursion", "a recursion without end"),
            ("endless", "a loop that does not end for this input"),
            (LATE, "the same with more fuel than time"),
            ("memory", "a list that grows without end"),
            ("returns_nothing", "a function that returns nothing"),
            ("returns_text", "a text instead of an outcome"),
            ("no_field", "an outcome without a field"),
            ("wrong_status", "an unknown status"),
            ("wrong_output", "an object as output"),
            ("wrong_messages", "an object instead of a list"),
            ("not_json", "output that is not JSON"),
        ],
    },
];

/// What a person is told of a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub name: &'static str,
    pub mistake: &'static str,
    pub text: String,
    /// It names a function, and a file and line of the author's.
    pub has_place: bool,
}

impl Language {
    /// Makes each mistake in a session of its own.
    ///
    /// # Errors
    /// When a row that makes a mistake succeeds.
    pub async fn make_all(&self, processor: &Processor) -> anyhow::Result<Vec<Told>> {
        let mut all = Vec::new();
        for &(name, mistake) in self.mistakes {
            let text = told(processor, name).await?;
            all.push(Told { name, mistake, has_place: self.has_place(&text), text });
        }
        Ok(all)
    }

    /// Whether a text has `function (file:line)` with the author's file.
    fn has_place(&self, text: &str) -> bool {
        let place = format!(" ({}:", self.file);
        text.match_indices(&place).any(|(at, _)| {
            let function_ends = text[..at].ends_with(|end: char| end.is_alphanumeric() || matches!(end, '_' | '>' | '}'));
            let line: String = text[at + place.len()..].chars().take_while(char::is_ascii_digit).collect();
            function_ends && !line.is_empty() && text[at + place.len() + line.len()..].starts_with(')')
        })
    }

    /// Its table, as docs/mistakes.md has it.
    #[must_use]
    pub fn table(&self, all: &[Told]) -> String {
        let with_place = all.iter().filter(|told| told.has_place).count();
        let head = format!(
            "## {}\n\n{with_place} of {} have function, file and line.\n\n| mistake | place | what a person sees |\n|---|---|---|\n",
            self.name,
            all.len()
        );
        all.iter().fold(head, |table, told| format!("{table}{}\n", told.row()))
    }
}

impl Told {
    /// Returns the row without its last column.
    #[must_use]
    pub fn row_head(&self) -> String {
        format!("| {} | {} |", self.mistake, if self.has_place { "yes" } else { "no" })
    }

    fn row(&self) -> String {
        let line = self.text.replace('\n', " ").replace('|', "\\|").replace('`', "'");
        let short: String = line.chars().take(SHOWN_CHARACTERS).collect();
        let cut = if short.len() < line.len() { "…" } else { "" };
        format!("{} `{short}{cut}` |", self.row_head())
    }
}

async fn told(processor: &Processor, name: &str) -> anyhow::Result<String> {
    let (input, limits) = match name {
        LATE => (input("endless"), Limits { fuel: u64::MAX / 100, timeout: TIMEOUT, ..Limits::default() }),
        "no_text" => (input("index").replace(r#","text":"twelve""#, ""), no_deadline()),
        "zero_is_text" => (input("index").replace(r#""zero":0"#, r#""zero":"none""#), no_deadline()),
        name => (input(name), no_deadline()),
    };
    let spec = SessionSpec {
        batch: batch(processor.kind(), "mistakes", "op", JsonText::default()),
        limits,
        cancel: CancellationToken::new(),
        progress: None,
        capabilities: Arc::default(),
    };
    let mut session = Session::new(processor.clone(), spec);
    let run = session.run_row(&LeasedRow { row_no: 1, line: 1, input, attempt: 1, rejected: None }).await;
    session.close().await;
    match run.ending {
        Ending::Succeeded(answer) => anyhow::bail!("{name} succeeded with {answer:?}"),
        Ending::Failed(answer) => Ok(answer.messages.iter().map(rowmill::model::Message::text).collect::<Vec<_>>().join("; ")),
        ending => Ok(ending.explain()),
    }
}

/// The machine may be busy: what is to be seen is another limit.
fn no_deadline() -> Limits {
    Limits { timeout: Duration::from_secs(3_600), ..Limits::default() }
}

fn input(name: &str) -> String {
    format!(r#"{{"mistake":"{name}","list":[1,2],"zero":0,"text":"twelve","nothing":null}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_function_with_the_authors_file_and_a_line() {
        let rust = LANGUAGES[0];
        for text in ["in mistakes::third (mistakes/src/lib.rs:91)", "in <mistakes::M>::make (mistakes/src/lib.rs:1) < other"] {
            assert!(rust.has_place(text), "{text}");
        }
        for text in [
            "in mistakes::third",
            "panicked at mistakes/src/lib.rs:91:5",
            "in third (mistakes/src/lib.rs)",
            "in third (core/src/option.rs:5)",
            " (mistakes/src/lib.rs:1)",
        ] {
            assert!(!rust.has_place(text), "{text}");
        }
    }
}
