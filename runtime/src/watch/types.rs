//! What files are, by their names.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::ContextTemplate;
use crate::intake::FileForm;
use crate::model::PartialTerms;
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

/// A pattern that is none.
#[derive(Debug, thiserror::Error)]
#[error("{pattern:?} is no pattern: {reason}")]
pub struct BadPattern {
    pub pattern: String,
    pub reason: String,
}

/// Patterns of names: `*`, `?`, `[a-z]`, `{one,other}`. Letters' case counts.
pub struct Patterns(GlobSet);

impl Patterns {
    /// # Errors
    /// [`BadPattern`].
    pub fn of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Patterns, BadPattern> {
        let mut set = GlobSetBuilder::new();
        let bad = |pattern: &str, error: &globset::Error| BadPattern { pattern: pattern.to_owned(), reason: error.kind().to_string() };
        for pattern in patterns {
            set.add(GlobBuilder::new(pattern).literal_separator(true).build().map_err(|error| bad(pattern, &error))?);
        }
        Ok(Patterns(set.build().map_err(|error| bad("", &error))?))
    }

    /// The position of the first pattern that this name matches.
    pub(super) fn first_match(&self, name: &str) -> Option<usize> {
        self.0.matches(name).into_iter().min()
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
}
