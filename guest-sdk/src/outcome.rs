//! What became of a row or a query, and how it is told.

use crate::bindings::types;
use crate::{Failure, Message, Piece, RowStatus};
use serde::Serialize;

/// What became of a row or a query: whether the work was done, the result, what to tell the submitter, and text for output files.
///
/// ```
/// use rowmill_guest::{Message, Outcome};
///
/// let good = Outcome::success(42).piece("report.csv", "42,ok");
/// let bad: Outcome<i32> = Outcome::failed()
///     .message(Message::new("amount-negative").id(3).field("amount").value(-5))
///     .message("memo-missing");
/// # assert_eq!(good.output, Some(42));
/// # assert_eq!(bad.messages[0].values, ["-5"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an outcome counts only when it is returned"]
pub struct Outcome<T> {
    /// Whether the work was done.
    pub status: RowStatus,
    /// The result; the submitter sees `{}` when there is none.
    pub output: Option<T>,
    /// What to tell the submitter, in order.
    pub messages: Vec<Message>,
    /// Pieces for output files. They are kept for failed rows too.
    pub pieces: Vec<Piece>,
}

impl<T> Outcome<T> {
    /// The work was done.
    pub const fn success(output: T) -> Self {
        Self { status: RowStatus::Success, output: Some(output), messages: Vec::new(), pieces: Vec::new() }
    }

    /// The input was understood, and the work cannot be done. Say why with [`message`](Self::message).
    pub const fn failed() -> Self {
        Self { status: RowStatus::Failed, output: None, messages: Vec::new(), pieces: Vec::new() }
    }

    /// Sets the result, for a failed row that has one nevertheless.
    pub fn output(mut self, output: T) -> Self {
        self.output = Some(output);
        self
    }

    /// Adds something to tell the submitter. A `&str` is a message that consists of its code only.
    pub fn message(mut self, message: impl Into<Message>) -> Self {
        self.messages.push(message.into());
        self
    }

    /// Adds several messages.
    pub fn messages(mut self, messages: impl IntoIterator<Item = Message>) -> Self {
        self.messages.extend(messages);
        self
    }

    /// Adds text, usually one line, to a named output file. When the batch is done, the pieces of each file are joined in line order: each is trimmed
    /// and ends with a line break, empty ones are left out. A file whose pieces are all empty does not come to be. A name has up to 128 ASCII letters, digits, `.`, `-` and `_`, and does not begin with a dot.
    pub fn piece(mut self, file: impl Into<String>, text: impl Into<String>) -> Self {
        self.pieces.push(Piece { file: file.into(), text: text.into() });
        self
    }
}

/// One thing to tell the submitter about a row, for machines and for translation: whoever shows it makes the text from `code` and `values`.
impl Message {
    /// A message of this kind, without number, field or values. `code` is a short word such as `amount-negative`.
    pub fn new(code: impl Into<String>) -> Self {
        Self { id: 0, code: code.into(), field: None, values: Vec::new() }
    }

    /// Sets the number by which a catalogue of texts can be looked up; 0 unless set.
    #[must_use]
    pub const fn id(mut self, id: u32) -> Self {
        self.id = id;
        self
    }

    /// Sets the field of the input that the message is about.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Adds a value to put into the text.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "so that a number can be given as it is")]
    pub fn value(mut self, value: impl ToString) -> Self {
        self.values.push(value.to_string());
        self
    }
}

impl From<&str> for Message {
    fn from(code: &str) -> Self {
        Self::new(code)
    }
}

/// Out to the runtime.
pub(crate) fn to_contract<T: Serialize>(outcome: Outcome<T>) -> Result<types::Outcome, Failure> {
    let Outcome { status, output, messages, pieces } = outcome;
    let output = match output {
        // `?` would do, but the reader of the row does not know that serde was at work.
        Some(output) => {
            serde_json::to_string(&output).map_err(|error| Failure::Permanent(format!("the output cannot be written as JSON: {error}")))?
        }
        None => String::new(),
    };
    Ok(types::Outcome { status, output, messages, pieces })
}
