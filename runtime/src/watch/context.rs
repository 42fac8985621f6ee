//! The context that a type gives to the batches of its files.

use serde_json::Value;

use crate::jobs::KeptFile;
use crate::model::JsonText;

/// A JSON value whose texts may name what is known of a file: `{name}`, `{size}`, `{sha256}`. `{{` and `}}` are braces. A text that is `{size}` and nothing else becomes
/// a number.
#[derive(Clone, Debug)]
pub struct ContextTemplate(Value);

/// A template names what nobody knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is nothing that a context can name: there are {{name}}, {{size}} and {{sha256}}, and {{{{ and }}}} for braces")]
pub struct UnknownPlaceholder(pub String);

impl ContextTemplate {
    /// Checks a template.
    ///
    /// # Errors
    /// [`UnknownPlaceholder`].
    pub fn check(template: Value) -> Result<ContextTemplate, UnknownPlaceholder> {
        fill(&template, &|placeholder| matches!(placeholder, "name" | "size" | "sha256").then(String::new))?;
        Ok(ContextTemplate(template))
    }

    /// The context for a file.
    pub(super) fn of_file(&self, name: &str, file: &KeptFile) -> JsonText {
        let known = |placeholder: &str| match placeholder {
            "name" => Some(name.to_owned()),
            "size" => Some(file.size_bytes.to_string()),
            "sha256" => Some(file.sha256.clone()),
            _ => None,
        };
        let filled = match &self.0 {
            Value::String(text) if text == SIZE => Ok(file.size_bytes.into()),
            template => fill(template, &known),
        };
        JsonText::trusted(filled.expect("it was checked").to_string())
    }
}

const SIZE: &str = "{size}";

fn fill(template: &Value, known: &dyn Fn(&str) -> Option<String>) -> Result<Value, UnknownPlaceholder> {
    Ok(match template {
        Value::String(text) if text == SIZE => {
            let size = known("size").unwrap_or_default();
            size.parse::<u64>().map_or(Value::String(size), Value::from)
        }
        Value::String(text) => Value::String(fill_text(text, known)?),
        Value::Array(items) => Value::Array(items.iter().map(|item| fill(item, known)).collect::<Result<_, _>>()?),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| Ok((name.clone(), fill(value, known)?))).collect::<Result<_, UnknownPlaceholder>>()?)
        }
        other => other.clone(),
    })
}

fn fill_text(text: &str, known: &dyn Fn(&str) -> Option<String>) -> Result<String, UnknownPlaceholder> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        filled.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            filled.push_str(brace);
            rest = after;
        } else {
            let name = rest.split_once('}').filter(|_| brace == "{").map(|(name, after)| {
                rest = after;
                name
            });
            let value =
                name.and_then(known).ok_or_else(|| UnknownPlaceholder(name.map_or_else(|| brace.to_owned(), |name| format!("{{{name}}}"))))?;
            filled.push_str(&value);
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: Value) -> Result<Value, UnknownPlaceholder> {
        let file = KeptFile { object: "files/x".to_owned(), size_bytes: 17, sha256: "abc".to_owned() };
        let text = ContextTemplate::check(template)?.of_file("a {b}.csv", &file);
        Ok(serde_json::from_str(text.as_str()).unwrap())
    }

    #[test]
    fn texts_name_what_is_known_of_the_file() {
        let template = json!({"file": "{name}", "in": ["from {name} ({size} bytes)", 3, {"sum": "{sha256}"}], "size": "{size}", "plain": null});
        let expected = json!({"file": "a {b}.csv", "in": ["from a {b}.csv (17 bytes)", 3, {"sum": "abc"}], "size": 17, "plain": null});
        assert_eq!(filled(template).unwrap(), expected);
        assert_eq!(filled(json!("{{name}} {{}} }}")).unwrap(), json!("{name} {} }"));
        assert_eq!(filled(json!("{size}")).unwrap(), json!(17));
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        for (template, told) in [(json!({"a": ["{nam}"]}), "{nam}"), (json!("{name"), "{"), (json!("name}"), "}"), (json!("{}"), "{}")] {
            assert_eq!(filled(template), Err(UnknownPlaceholder(told.to_owned())));
        }
    }
}
