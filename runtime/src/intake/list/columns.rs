//! The columns of a list of failed rows in CSV.

use std::borrow::Cow;

use super::super::IntakeError;
use super::super::records::RECORD_BYTES_MAX;
use super::{CODES, FAILED_COLUMNS, LINE, REASON, REJECTED_CODE, TEXT, again, fields_of_rejected, is_near, line_number};

/// The largest codes, and the largest reason, of a record of a list: each is made of the messages
/// of a row, of which there is 1 MiB at most.
const REASON_BYTES_MAX: usize = 4 << 20;
/// A longer name is nearly none of those of a list.
const NAME_BYTES_MAX: usize = 40;

/// Where the columns of a list of failed rows are.
pub(in crate::intake) struct ListColumns {
    line: Option<usize>,
    codes: usize,
    text: usize,
    reason: usize,
}

impl ListColumns {
    /// The columns of a list; none in a header of another file. The header of a list has all of
    /// them, but the lines may have been removed.
    ///
    /// # Errors
    /// The header has only some of them, or one whose name is nearly right.
    pub(in crate::intake) fn of(columns: &[String]) -> Result<Option<ListColumns>, IntakeError> {
        if let Some((found, meant)) = columns.iter().find_map(|name| Some((name, nearly(name)?))) {
            return Err(IntakeError::ListColumnName { found: found.clone(), meant });
        }
        let at = |name: &str| columns.iter().position(|column| column == name);
        let line = at(LINE);
        match (at(CODES), at(TEXT), at(REASON)) {
            (Some(codes), Some(text), Some(reason)) => Ok(Some(ListColumns { line, codes, text, reason })),
            (None, None, None) if line.is_none() => Ok(None),
            _ => {
                let names = |is_there: bool| FAILED_COLUMNS.into_iter().filter(move |name| at(name).is_some() == is_there);
                let missing = names(false).filter(|name| *name != LINE).collect::<Vec<_>>().join(" and ");
                Err(IntakeError::PartOfList { found: names(true).collect::<Vec<_>>().join(" and "), missing })
            }
        }
    }

    /// Returns true if rows have lines of their own.
    pub(in crate::intake) fn has_lines(&self) -> bool {
        self.line.is_some()
    }

    /// The row's own line; none if rows have none.
    pub(in crate::intake) fn line_of(&self, fields: &[Cow<'_, str>], file_line: u64) -> Result<Option<u32>, IntakeError> {
        self.line.map(|column| line_number(&fields[column], LINE, file_line)).transpose()
    }

    /// Checks that no part of a record is larger than those that are written to a list.
    ///
    /// # Errors
    /// The part that is larger.
    pub(in crate::intake) fn check_sizes(&self, fields: &[Cow<'_, str>], own: &[&str], file_line: u64) -> Result<(), IntakeError> {
        let own = own.iter().map(|field| field.len()).sum();
        let parts = [
            ("all of its own columns", own, RECORD_BYTES_MAX),
            (TEXT, fields[self.text].len(), RECORD_BYTES_MAX),
            (CODES, fields[self.codes].len(), REASON_BYTES_MAX),
            (REASON, fields[self.reason].len(), REASON_BYTES_MAX),
        ];
        match parts.into_iter().find(|(_, bytes, limit)| bytes > limit) {
            Some((name, _, limit)) => Err(IntakeError::ListPart { line: file_line, name, limit_mib: limit >> 20 }),
            None => Ok(()),
        }
    }

    /// Why a record, which has these fields of its own, is rejected again, and its text; none if it
    /// is a row. A processor may have a code of the same name: a rejected record is kept as text
    /// too, or is empty.
    pub(in crate::intake) fn rejection<'a>(&self, fields: &'a [Cow<'_, str>], own: &[&str]) -> Option<(String, &'a str)> {
        let text = &*fields[self.text];
        let is_empty = own.iter().all(|field| field.is_empty());
        let has_code = fields[self.codes].split(';').any(|code| code.trim() == REJECTED_CODE);
        let why = if has_code && (is_empty || !text.is_empty()) {
            if is_empty || fields_of_rejected(text, own.len()) == own {
                ": correct it, and empty its rowmill_codes"
            } else {
                ", and its fields were changed since: if it is corrected, empty its rowmill_codes"
            }
        } else if is_empty && !text.is_empty() {
            ", and its fields are empty, but its rowmill_text is not: fill in its fields, or empty its rowmill_text if they are to be empty"
        } else {
            return None;
        };
        Some((again(why, &fields[self.reason]), text))
    }
}

/// The name of a column of a list that this one is nearly.
fn nearly(name: &str) -> Option<&'static str> {
    if name.len() > NAME_BYTES_MAX || FAILED_COLUMNS.contains(&name) {
        return None;
    }
    let plain = |name: &str| name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let found = plain(name);
    FAILED_COLUMNS.into_iter().find(|right| is_near(&found, &plain(right)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_nearly_one_of_a_list_is_found() {
        for (name, right) in [
            ("Rowmill_Text", TEXT),
            ("ROWMILL_CODES", CODES),
            ("rowmill_code", CODES),
            (" rowmill_line ", LINE),
            ("rowmill-reason", REASON),
            ("rowmil_text", TEXT),
            ("rowmill_raeson", REASON),
        ] {
            assert_eq!(nearly(name), Some(right), "{name}");
        }
        for name in ["rowmill_line", "line", "codes", "text", "rowmill", "rowmill_id", "row_reason", "", &"rowmill_line".repeat(9)] {
            assert_eq!(nearly(name), None, "{name}");
        }
    }
}
