//! The lines of a list of failed rows in NDJSON.

use std::borrow::Cow;
use std::fmt;

use memchr::memmem;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::super::IntakeError;
use super::super::records::RECORD_BYTES_MAX;
use super::{again, is_near, line_number};

/// The name of the line in a list that is JSON.
pub(in crate::intake) const JSON_LINE: &str = "rowmill.line";
/// The keys of a line, and those of its `rowmill`.
const KEYS: [&str; 3] = ["rowmill", "input", "text"];
const WHY_KEYS: [&str; 3] = ["line", "codes", "reason"];
/// An object with more keys is refused for one that it has twice, or for one that is not known.
const PAIRS_MAX: usize = 16;

/// A line of NDJSON, as far as it may be one of a list of failed rows: a row as it was, or a text
/// that was no row, beside the reason. The order of the keys is of no importance.
pub(in crate::intake) enum Listed<'a> {
    /// A value that is a row itself.
    No,
    Row(ListedRow<'a>),
    /// It is like a line of a list, and is not one.
    Wrong {
        has_line: bool,
        problem: String,
    },
}

pub(in crate::intake) struct ListedRow<'a> {
    line: Option<&'a RawValue>,
    reason: Option<&'a RawValue>,
    value: &'a RawValue,
    is_text: bool,
}

/// The row in a line of a list.
pub(in crate::intake) enum ListedValue<'a> {
    Input(&'a str),
    /// It was rejected, and is not corrected.
    Text {
        text: Cow<'a, str>,
        reason: String,
    },
}

impl<'a> Listed<'a> {
    pub(in crate::intake) fn of(json: &'a str) -> Listed<'a> {
        // Nearly no row has such a key.
        let has_key = |key: &str| memmem::find(json.as_bytes(), key.as_bytes()).is_some();
        if !json.starts_with('{') || !["\"rowmill\"", "\"Rowmill\"", "\"ROWMILL\""].into_iter().any(has_key) {
            return Listed::No;
        }
        let Ok(Pairs(pairs)) = serde_json::from_str(json) else { return Listed::No };
        let Some((_, why)) = pairs.iter().find(|(key, _)| key.eq_ignore_ascii_case("rowmill")) else { return Listed::No };
        let Ok(Pairs(inner)) = serde_json::from_str(why.get()) else { return Listed::No };
        let is_one_of = |key: &str, names: &[&str]| names.iter().any(|name| key.eq_ignore_ascii_case(name));
        let has_row = pairs.iter().any(|(key, _)| is_one_of(key, &KEYS[1..]));
        let has_reason = !inner.is_empty() && inner.iter().all(|(key, _)| is_one_of(key, &WHY_KEYS));
        if !has_row && !has_reason {
            return Listed::No;
        }
        match listed_row(&pairs, &inner) {
            Ok(row) => Listed::Row(row),
            Err(problem) => Listed::Wrong { has_line: inner.iter().any(|(key, _)| key.eq_ignore_ascii_case("line")), problem },
        }
    }
}

fn listed_row<'a>(pairs: &[Pair<'a>], inner: &[Pair<'a>]) -> Result<ListedRow<'a>, String> {
    check_keys(pairs, KEYS)?;
    check_keys(inner, WHY_KEYS)?;
    let get = |pairs: &[Pair<'a>], name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
    let (value, is_text) = match (get(pairs, "input"), get(pairs, "text")) {
        (Some(input), None) => (input, false),
        (None, Some(text)) if text.get().starts_with('"') => (text, true),
        (None, Some(_)) => return Err("its \"text\" is no string".to_owned()),
        (Some(_), Some(_)) => {
            return Err("it has both \"input\" and \"text\": remove \"text\" if \"input\" is the corrected row, else remove \"input\"".to_owned());
        }
        (None, None) => return Err("it has neither \"input\" nor \"text\": write the row as \"input\", or remove the line".to_owned()),
    };
    Ok(ListedRow { line: get(inner, "line"), reason: get(inner, "reason"), value, is_text })
}

/// Checks that all keys are known, and come once.
fn check_keys(pairs: &[Pair<'_>], known: [&str; 3]) -> Result<(), String> {
    for (at, (key, _)) in pairs.iter().enumerate() {
        if !known.contains(&&**key) {
            let shown: String = key.chars().take(40).collect();
            return Err(match known.into_iter().find(|name| is_near(&key.to_lowercase(), name)) {
                Some(right) => format!("its key {shown:?} should be {right:?}"),
                None => format!("it has the key {shown:?}, which no such row has: remove it"),
            });
        }
        if pairs[..at].iter().any(|(before, _)| before == key) {
            return Err(format!("it has the key {key:?} twice"));
        }
    }
    Ok(())
}

impl<'a> ListedRow<'a> {
    /// The row's own line; none if the list has none for it.
    pub(in crate::intake) fn line(&self, file_line: u64) -> Result<Option<u32>, IntakeError> {
        self.line.map(|line| line_number(line.get(), JSON_LINE, file_line)).transpose()
    }

    /// The row as it is, or as the text that it came from.
    ///
    /// # Errors
    /// It is larger than a row of a file can be, or is no text.
    pub(in crate::intake) fn value(&self, file_line: u64) -> Result<ListedValue<'a>, IntakeError> {
        let too_large = |name| IntakeError::ListPart { line: file_line, name, limit_mib: RECORD_BYTES_MAX >> 20 };
        let json = self.value.get();
        if !self.is_text {
            return if json.len() > RECORD_BYTES_MAX { Err(too_large("input")) } else { Ok(ListedValue::Input(json)) };
        }
        let text = text_of(json).ok_or_else(|| IntakeError::ListShape { line: file_line, problem: "its \"text\" is no text".to_owned() })?;
        if text.len() > RECORD_BYTES_MAX {
            return Err(too_large("text"));
        }
        let reason = self.reason.and_then(|reason| text_of(reason.get())).unwrap_or_default();
        let reason = again(": correct it, and put \"input\" with the row in the place of \"text\"", &reason);
        Ok(ListedValue::Text { text, reason })
    }
}

fn text_of(json: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(json).ok().map(|text| text.0)
}

/// A string, which is copied only if it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

type Pair<'a> = (Cow<'a, str>, &'a RawValue);

/// The keys and values of an object, as they stand there: those that a list has, and the first other one, [`PAIRS_MAX`] in all.
struct Pairs<'a>(Vec<Pair<'a>>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs<'de>, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                let mut has_other = false;
                while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
                    let is_known = KEYS.iter().chain(&WHY_KEYS).any(|known| key.eq_ignore_ascii_case(known));
                    if pairs.len() == PAIRS_MAX || (has_other && !is_known) {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    has_other |= !is_known;
                    pairs.push((key, map.next_value::<&'de RawValue>()?));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_no_list_has_are_not_collected() {
        let other = "\"\":0,".repeat(100_000);
        let known = "\"input\":1,".repeat(100);
        let json = format!("{{{other}{known}\"rowmill\":{{}}}}");
        let Pairs(pairs) = serde_json::from_str(&json).unwrap();
        assert_eq!(pairs.len(), PAIRS_MAX);
        assert!(matches!(Listed::of(&format!("{{{other}\"rowmill\":{{\"line\":1}},\"input\":1}}")), Listed::Wrong { .. }));
    }

    fn row(json: &str) -> Option<ListedRow<'_>> {
        match Listed::of(json) {
            Listed::Row(row) => Some(row),
            _ => None,
        }
    }

    fn input(json: &str) -> Option<String> {
        match row(json)?.value(1).unwrap() {
            ListedValue::Input(input) => Some(input.to_owned()),
            ListedValue::Text { .. } => None,
        }
    }

    #[test]
    fn a_line_of_a_list_is_known_by_its_shape() {
        assert_eq!(input(r#"{"rowmill":{"line":3},"input":{"a":1}}"#).as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(input("{ \"input\" : null,\t\"rowmill\":{\"line\": 3} }").as_deref(), Some("null"));
        for row in
            [r#"{"rowmill":1,"input":2}"#, r#"{"rowmill":{}}"#, r#"{"rowmill":{"a":1},"b":2}"#, r#"{"input":2}"#, r#"["rowmill"]"#, "{\"rowmill\":"]
        {
            assert!(matches!(Listed::of(row), Listed::No), "{row}");
        }
        let text = row(r#"{"text":"{nope","rowmill":{"reason":"so"}}"#);
        let Some(Ok(ListedValue::Text { text, reason })) = text.map(|row| row.value(1)) else { panic!("it is a text") };
        assert!(text == "{nope" && reason.ends_with("in the place of \"text\"; the first reason: so"), "{reason}");
        let line = row(r#"{"rowmill":{"line":0},"input":1}"#).unwrap().line(7);
        assert!(line.is_err());
    }

    #[test]
    fn a_line_that_is_nearly_one_of_a_list_says_the_difference() {
        for (line, said) in [
            (r#"{"rowmill":{"line":1},"input":2,"text":"x"}"#, "both \"input\" and \"text\""),
            (r#"{"rowmill":{"line":1,"reason":"so"}}"#, "neither \"input\" nor \"text\""),
            (r#"{"rowmill":{},"input":2,"c":3}"#, "the key \"c\", which no such row has"),
            (r#"{"c":3,"rowmill":{},"input":2}"#, "the key \"c\", which no such row has"),
            (r#"{"rowmill":{"x":1},"input":2}"#, "the key \"x\", which no such row has"),
            (r#"{"Rowmill":{"line":1},"input":2}"#, "its key \"Rowmill\" should be \"rowmill\""),
            (r#"{"rowmill":{"line":1},"Input":2}"#, "its key \"Input\" should be \"input\""),
            (r#"{"rowmill":{"line":1},"imput":2}"#, "its key \"imput\" should be \"input\""),
            (r#"{"rowmill":{"Line":1},"input":2}"#, "its key \"Line\" should be \"line\""),
            (r#"{"rowmill":{},"input":2,"input":3}"#, "the key \"input\" twice"),
            (r#"{"rowmill":{},"text":null}"#, "its \"text\" is no string"),
        ] {
            let Listed::Wrong { problem, .. } = Listed::of(line) else { panic!("{line}") };
            assert!(problem.contains(said), "{line}: {problem}");
        }
    }
}
