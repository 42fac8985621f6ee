//! What files are, by their names.

use super::ContextTemplate;
use super::glob::Glob;
use crate::intake::FileForm;
use crate::model::{PartialTerms, canonical_name};
use crate::sandbox::Checker;

/// What files of one kind become.
pub struct FileType {
    /// Which names it is for.
    pub pattern: String,
    pub app: String,
    pub op: String,
    /// By the file's name when there is none.
    pub form: Option<FileForm>,
    pub context: ContextTemplate,
    pub terms: PartialTerms,
    /// Looks at the file first.
    pub checker: Option<Checker>,
}

/// Reason why a pattern is of no use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    #[error("{pattern:?} is no pattern: {reason}")]
    Unreadable { pattern: String, reason: String },
    #[error("the type {pattern:?} would never get a file: {reason}")]
    Unreachable { pattern: String, reason: String },
}

/// Patterns of names: `*`, `?`, `[a-z]`, `{one,other}`. Letters' case counts; how letters are
/// composed (NFC, NFD) does not.
pub struct Patterns(Vec<Glob>);

impl Patterns {
    /// # Errors
    /// [`BadPattern::Unreadable`].
    pub fn of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Patterns, BadPattern> {
        let parse =
            |pattern: &str| Glob::parse(&canonical_name(pattern)).map_err(|reason| BadPattern::Unreadable { pattern: pattern.to_owned(), reason });
        Ok(Patterns(patterns.into_iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// Patterns of types, each of which is for some file: `ignored` are left alone, and the first
    /// that matches counts. Only what is certain is refused.
    ///
    /// # Errors
    /// [`BadPattern`].
    pub fn of_types<'a>(patterns: impl IntoIterator<Item = &'a str>, ignored: &Patterns) -> Result<Patterns, BadPattern> {
        let texts: Vec<&str> = patterns.into_iter().collect();
        let types = Patterns::of(texts.iter().copied())?;
        for (at, glob) in types.0.iter().enumerate() {
            let unreachable = |reason: String| BadPattern::Unreachable { pattern: texts[at].to_owned(), reason };
            if glob.is_hidden() {
                return Err(unreachable("names that begin with a dot are left alone".to_owned()));
            }
            if ignored.0.iter().any(|other| other.covers(glob)) {
                return Err(unreachable("all its files are left alone (ignore)".to_owned()));
            }
            let before = (0..at).find(|before| types.0[*before].covers(glob));
            if let Some(before) = before {
                return Err(unreachable(format!("{:?} stands before it and takes them all; the first type that matches counts", texts[before])));
            }
        }
        Ok(types)
    }

    /// The position of the first pattern that this name matches.
    pub(super) fn first_match(&self, name: &str) -> Option<usize> {
        let name = canonical_name(name);
        self.0.iter().position(|glob| glob.matches(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_matches_counts() {
        let patterns = Patterns::of(["a-*.csv", "*.csv", "*.{ndjson,csv}.gz", "[0-9]?"]).unwrap();
        let first = |name: &str| patterns.first_match(name);
        assert_eq!((first("a-1.csv"), first("b.csv"), first("b.csv.gz"), first("7x")), (Some(0), Some(1), Some(2), Some(3)));
        assert_eq!((first("b.CSV"), first("a-1.csv.bak"), first("x7")), (None, None, None));
        let bad = Patterns::of(["a[", "b"]).map(drop).unwrap_err().to_string();
        assert!(bad.starts_with("\"a[\" is no pattern: "), "{bad}");
    }

    #[test]
    fn a_name_matches_however_it_is_composed() {
        let composed = Patterns::of(["größe-*.csv", "*"]).unwrap();
        let decomposed = Patterns::of(["gro\u{308}ße-*.csv", "*"]).unwrap();
        for name in ["größe-1.csv", "gro\u{308}ße-1.csv"] {
            assert_eq!((composed.first_match(name), decomposed.first_match(name)), (Some(0), Some(0)), "{name}");
        }
    }

    #[test]
    fn a_type_that_gets_no_file_is_refused() {
        let refused = |patterns: &[&str]| {
            let ignored = Patterns::of(["*.part", "*.tmp"]).unwrap();
            Patterns::of_types(patterns.iter().copied(), &ignored).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(refused(&["a-*.csv", "*.csv", "b.ndjson", "*"]), Ok(()));
        let behind = |pattern: &str, first: &str| {
            Err(format!(
                "the type {pattern:?} would never get a file: {first:?} stands before it and takes them all; the first type that matches counts"
            ))
        };
        assert_eq!(refused(&["*", "*.csv"]), behind("*.csv", "*"));
        assert_eq!(refused(&["{*.csv,*}", "a"]), behind("a", "{*.csv,*}"));
        assert_eq!(refused(&["*.csv", "a", "*.csv"]), behind("*.csv", "*.csv"));
        assert_eq!(refused(&["gro\u{308}ße*", "größe*"]), behind("größe*", "gro\u{308}ße*"));
        assert_eq!(refused(&["*.csv", "{january,february}.csv"]), behind("{january,february}.csv", "*.csv"));
        assert_eq!(refused(&["*.csv", "{january.csv,february.gz}"]), Ok(()));
        assert!(refused(&[".csv"]).unwrap_err().contains("begin with a dot are left alone"));
        assert!(refused(&["today.part"]).unwrap_err().contains("left alone (ignore)"));
        assert!(refused(&["*.tmp"]).unwrap_err().contains("left alone (ignore)"));
        assert!(refused(&["in/*.csv"]).unwrap_err().starts_with("\"in/*.csv\" is no pattern: "));
    }
}
