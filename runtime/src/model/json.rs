use std::fmt;

use serde::de::IgnoredAny;

/// Text that is valid JSON. Empty text counts as `{}`, as in Alya's `JSONstr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(String);

/// The text is not JSON.
#[derive(Debug, thiserror::Error)]
#[error("not valid JSON: {0}")]
pub struct NotJson(serde_json::Error);

impl NotJson {
    /// The same for a text of one line: with the column alone, in characters, since the text may stand in any line of a file. `indent` characters stand before
    /// the text in that line.
    pub fn in_one_line(&self, text: &str, indent: usize) -> String {
        let (line, column) = (self.0.line(), self.0.column());
        let whole = self.to_string();
        match whole.strip_suffix(&format!(" at line {line} column {column}")) {
            Some(said) if line == 1 => {
                let column = indent + text[..text.ceil_char_boundary(column)].chars().count();
                format!("{said} at column {column}")
            }
            _ => whole,
        }
    }
}

impl JsonText {
    /// Checks a text.
    ///
    /// # Errors
    /// `NotJson`, which says what is wrong and where in the text.
    pub fn check(text: impl Into<String>) -> Result<JsonText, NotJson> {
        let text = text.into();
        if text.is_empty() {
            return Ok(JsonText::default());
        }
        serde_json::from_str::<IgnoredAny>(&text).map_err(NotJson)?;
        Ok(JsonText(text))
    }

    /// Takes a text that was checked before, or that a JSON library wrote.
    pub fn trusted(text: impl Into<String>) -> JsonText {
        JsonText(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl Default for JsonText {
    fn default() -> JsonText {
        JsonText("{}".to_owned())
    }
}

impl fmt::Display for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
