//! Lines of rows that come in.

use std::collections::HashSet;

use crate::model::{JsonText, Line, NewRow, ProcessorKind};
use crate::store::StoreError;

/// A row that comes in, with its line.
pub(super) struct LinedRow {
    pub line: u32,
    pub input: JsonText,
    /// See [`NewRow::rejected`].
    pub rejected: Option<String>,
}

/// Checks the lines that the submitter gave.
pub(super) fn check_lines(kind: ProcessorKind, rows: &[NewRow]) -> Result<(), StoreError> {
    let wrong = match kind {
        ProcessorKind::Batch => rows
            .iter()
            .position(|row| row.line == Line::Given(0))
            .map(|at| format!("a row's line is 1 or more, but row {} of this request has 0", at + 1)),
        ProcessorKind::SlowQuery => rows.iter().find_map(|row| match row.line {
            Line::Given(0) => None,
            Line::Given(line) => Some(format!("a slow query's line is 0, but this request has {line}")),
            Line::Next => Some("a slow query's line is 0, but this request asks for the next line of a batch".to_owned()),
        }),
    };
    if let Some(wrong) = wrong {
        return Err(StoreError::Invalid(wrong));
    }
    let given = || rows.iter().filter_map(|row| if let Line::Given(line) = row.line { Some(line) } else { None });
    if given().is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let mut seen = HashSet::with_capacity(rows.len());
    given().find(|line| !seen.insert(*line)).map_or(Ok(()), |line| Err(line_twice(line.into())))
}

/// Gives each row its line: a row without one gets one more than the highest line so far, of the batch and of the rows before
/// it. `highest` is that of the batch, 0 or less when it has none.
pub(super) fn number_lines(rows: Vec<NewRow>, highest: i64) -> Result<Vec<LinedRow>, StoreError> {
    let mut highest = u32::try_from(highest).unwrap_or(0);
    rows.into_iter()
        .map(|NewRow { line, input, rejected }| {
            let line = match line {
                Line::Given(line) => line,
                Line::Next => highest.checked_add(1).ok_or_else(no_line_left)?,
            };
            highest = highest.max(line);
            Ok(LinedRow { line, input, rejected })
        })
        .collect()
}

fn no_line_left() -> StoreError {
    StoreError::Invalid(format!("the batch has the line {}, which is the highest: a further row needs a line of its own", u32::MAX))
}

/// The error of a line that the batch has already.
pub(super) fn line_twice(line: i64) -> StoreError {
    StoreError::Invalid(format!("line {line} comes twice: each row of a batch has a line of its own"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(lines: &[Line], highest: i64) -> Result<Vec<u32>, String> {
        let rows = lines.iter().map(|line| NewRow::new(*line, JsonText::default())).collect();
        number_lines(rows, highest).map(|rows| rows.into_iter().map(|row| row.line).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_row_without_a_line_gets_one_more_than_the_highest_before_it() {
        use Line::{Given, Next};
        assert_eq!(numbered(&[Next, Next], -1), Ok(vec![1, 2]));
        assert_eq!(numbered(&[Next, Given(3), Next, Given(20), Given(12), Next], 9), Ok(vec![10, 3, 11, 20, 12, 21]));
    }

    #[test]
    fn behind_the_highest_line_there_is_none() {
        let last = i64::from(u32::MAX);
        assert_eq!(numbered(&[Line::Next], last - 1), Ok(vec![u32::MAX]));
        assert!(numbered(&[Line::Next], last).unwrap_err().contains("4294967295, which is the highest"));
    }
}
