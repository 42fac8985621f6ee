//! Secrets in what a guest says.

use std::sync::Arc;

/// What is shown instead.
const HIDDEN: &str = "***";
/// A part of a secret at an end of a text is hidden from so many bytes on.
const PART_BYTES_MIN: usize = 4;

/// Texts that are never shown: the values of secrets, and forms that they commonly take. It helps against accidents; a guest that wants to tell can write a secret backwards.
#[derive(Clone, Default)]
pub struct Masks(Arc<[String]>);

impl Masks {
    /// A shorter text would be found in what has nothing to do with it.
    pub const SECRET_BYTES_MIN: usize = 6;

    /// Hides these, each as it is, as it stands in JSON and in Rust's debug output, and each of its lines.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Masks {
        let mut hidden: Vec<String> = Vec::new();
        for secret in secrets {
            let whole = secret.trim();
            let json = serde_json::Value::from(whole).to_string();
            let debug = format!("{whole:?}");
            let forms = [whole, &json[1..json.len() - 1], &debug[1..debug.len() - 1]];
            let lines = whole.lines().map(str::trim);
            hidden.extend(forms.into_iter().chain(lines).filter(|form| form.len() >= Masks::SECRET_BYTES_MIN).map(str::to_owned));
        }
        // The longest first: what holds another is hidden whole.
        hidden.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        hidden.dedup();
        Masks(hidden.into())
    }

    /// The text without secrets.
    pub(super) fn hide(&self, mut text: String) -> String {
        for secret in &*self.0 {
            if text.contains(secret) {
                text = text.replace(secret, HIDDEN);
            }
        }
        text
    }

    /// The same for a text that may have been cut off at its ends: a secret that was cut is hidden, too.
    pub(super) fn hide_cut(&self, text: String) -> String {
        if self.0.is_empty() {
            return text;
        }
        let mut text = self.hide(text);
        // The longest part that is there.
        let parts = |secret: &str| secret.char_indices().map(|(at, _)| at).filter(|at| *at >= PART_BYTES_MIN).collect::<Vec<_>>();
        let end = self.0.iter().filter_map(|secret| parts(secret).into_iter().rev().find(|at| text.ends_with(&secret[..*at]))).max();
        if let Some(bytes) = end {
            text.truncate(text.len() - bytes);
            text.push_str(HIDDEN);
        }
        let left = |secret: &String| {
            let at = parts(secret).into_iter().find(|at| secret.len() - at >= PART_BYTES_MIN && text.starts_with(&secret[*at..]))?;
            Some(secret.len() - at)
        };
        if let Some(bytes) = self.0.iter().filter_map(left).max() {
            text.replace_range(..bytes, HIDDEN);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks() -> Masks {
        Masks::new(["hunter2-hunter2", "say \"it\" twice", "-----BEGIN KEY-----\nMIIBVwIBADANBg\n-----END KEY-----\n", "xy"])
    }

    #[test]
    fn secrets_are_hidden_wherever_and_however_they_stand() {
        let hide = |text: &str| masks().hide(text.to_owned());
        assert_eq!(hide("a hunter2-hunter2, hunter2-hunter2"), "a ***, ***");
        assert_eq!(hide(r#"{"a":"say \"it\" twice"} say "it" twice"#), r#"{"a":"***"} ***"#);
        assert_eq!(hide("first MIIBVwIBADANBg then"), "first *** then");
        assert_eq!(hide("what is so short is no secret: xy"), "what is so short is no secret: xy");
    }

    #[test]
    fn a_secret_that_was_cut_off_is_hidden() {
        let hide = |text: &str| masks().hide_cut(text.to_owned());
        assert_eq!(hide("the key is hunter2-hun"), "the key is ***");
        assert_eq!(hide("r2-hunter2 was the key"), "*** was the key");
        assert_eq!(hide("the key is hun"), "the key is hun");
        assert_eq!(hide(""), "");
        assert_eq!(hide("hunter2-hunter2"), "***");
        assert_eq!(Masks::default().hide_cut("anything".to_owned()), "anything");
    }

    #[test]
    fn characters_are_not_cut() {
        let masks = Masks::new(["schlüssel-ß-ü"]);
        assert_eq!(masks.hide_cut("x schlü".to_owned()), "x ***");
        assert_eq!(masks.hide_cut("üssel-ß-ü x".to_owned()), "*** x");
    }
}
