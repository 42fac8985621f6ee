//! JSON into the processor's types, with the path of the value that does not fit.

use crate::Message;
use serde::de::DeserializeOwned;
use std::fmt::Write;

/// The code of the message for an input or a context that does not fit its type.
const BAD_INPUT: &str = "bad_input";

/// Reads `json`, which stands at `root` of what the submitter gave (empty for the input itself).
///
/// # Errors
/// The message to fail the row with.
pub(crate) fn decode<T: DeserializeOwned>(root: &str, json: &str) -> Result<T, Message> {
    serde_json::from_str(json).map_err(|error| bad_input(root, json, &error))
}

#[cold]
fn bad_input(root: &str, json: &str, error: &serde_json::Error) -> Message {
    let text = error.to_string();
    let mut path = String::from(root);
    push_path_at(&mut path, &json[..offset(json, error)]);
    // serde names a field that is not there in the text only.
    if let Some(name) = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        push_key(&mut path, name);
    }
    // The position in JSON that the runtime made says nothing to the submitter, and the path says it all.
    let position = format!(" at line {} column {}", error.line(), error.column());
    let told = if error.is_data() { text.strip_suffix(&position).unwrap_or(&text) } else { &text };
    let message = Message::new(BAD_INPUT).value(told);
    if path.is_empty() { message } else { message.field(path) }
}

/// How many bytes serde_json had read. Its columns count bytes, its lines begin at 1; an error without a position has line 0.
fn offset(json: &str, error: &serde_json::Error) -> usize {
    let Some(line) = error.line().checked_sub(1) else { return 0 };
    let line_start: usize = json.split_inclusive('\n').take(line).map(str::len).sum();
    let mut offset = (line_start + error.column()).min(json.len());
    while !json.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Where in a document one is.
enum Step<'a> {
    /// In an object, at this key: the raw text between the quotes.
    Key(&'a str),
    /// In an array, at this index.
    Index(usize),
}

/// Adds the path of the value in which (or right behind which) `read`, the beginning of a JSON document, ends.
///
/// serde_json tells only line and column. Finding the path from there costs nothing until there is an error; a deserializer that keeps the path
/// costs time for every good row.
fn push_path_at(path: &mut String, read: &str) {
    // The parser may have looked at the comma behind the offending value; that does not move it to the next.
    let read = read.trim_end_matches(|c: char| c == ',' || c.is_ascii_whitespace());
    let bytes = read.as_bytes();
    let mut steps = Vec::new();
    let mut key_follows = false;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' => {
                steps.push(Step::Key(""));
                key_follows = true;
            }
            b'[' => steps.push(Step::Index(0)),
            b'}' | b']' => {
                steps.pop();
                key_follows = false;
            }
            b',' => match steps.last_mut() {
                Some(Step::Index(index)) => *index += 1,
                _ => key_follows = true,
            },
            b'"' => {
                let start = at + 1;
                at = string_end(bytes, start);
                if let (true, Some(Step::Key(key))) = (key_follows, steps.last_mut()) {
                    *key = &read[start..at];
                    key_follows = false;
                }
            }
            _ => {}
        }
        at += 1;
    }
    for step in steps {
        match step {
            Step::Key("") => {}
            Step::Key(key) => push_key(path, key),
            Step::Index(index) => write!(path, "[{index}]").expect("a String takes any text"),
        }
    }
}

fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

/// The index of the quote that ends the string whose text begins at `at`, or the length of `bytes` when it does not end.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at.min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read matters")]
    struct Order {
        id: u32,
        #[serde(default)]
        items: Vec<Item>,
        note: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only whether it can be read matters")]
    struct Item {
        count: u8,
        tags: (String, String),
    }

    fn field(json: &str) -> Option<String> {
        let message = decode::<Order>("", json).expect_err(json);
        assert_eq!(message.code, "bad_input");
        assert_eq!(message.values.len(), 1);
        message.field
    }

    #[test]
    fn a_bad_value_is_found() {
        assert_eq!(field(r#"{"id":"7"}"#).as_deref(), Some("id"));
        assert_eq!(field(r#"{"id":-7,"note":"x"}"#).as_deref(), Some("id"));
        assert_eq!(field(r#"{"note":"a \" , } b","id":1.5 , "items":[]}"#).as_deref(), Some("id"));
        assert_eq!(field("{\"note\":\"ä\",\n \"id\":\n null}").as_deref(), Some("id"));
        assert_eq!(field(r#"{"id":1,"note":[1]}"#).as_deref(), Some("note"));
    }

    #[test]
    fn a_bad_value_deep_inside_is_found() {
        let good = r#"{"count":1,"tags":["a","b"]}"#;
        assert_eq!(field(&format!(r#"{{"id":1,"items":[{good},{{"count":300}}]}}"#)).as_deref(), Some("items[1].count"));
        assert_eq!(field(&format!(r#"{{"items":[{good},{good},{{"tags":["a",2]}}],"id":1}}"#)).as_deref(), Some("items[2].tags[1]"));
        assert_eq!(field(r#"{"items":[true],"id":1}"#).as_deref(), Some("items[0]"));
    }

    #[test]
    fn a_missing_or_unknown_field_is_named_once() {
        assert_eq!(field("{}").as_deref(), Some("id"));
        assert_eq!(field(r#"{"items":[{"count":1}],"id":1}"#).as_deref(), Some("items[0].tags"));
        assert_eq!(field(r#"{"id":1,"colour":"red"}"#).as_deref(), Some("colour"));
        assert_eq!(field(r#"{"id":1,"id":2}"#).as_deref(), Some("id"));
    }

    #[test]
    fn the_whole_is_bad() {
        assert_eq!(field("7"), None);
        assert_eq!(field(""), None);
        let message = decode::<Order>("context", "[]").unwrap_err();
        assert_eq!(message.field.as_deref(), Some("context"));
        let message = decode::<Order>("context", r#"{"id":{}}"#).unwrap_err();
        assert_eq!(message.field.as_deref(), Some("context.id"));
    }
}
