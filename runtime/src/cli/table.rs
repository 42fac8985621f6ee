//! Columns for people.

use crate::model::without_controls;

/// Rows of as many cells as there are columns.
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub fn new(titles: [&str; N]) -> Table<N> {
        Table { rows: vec![titles.map(str::to_owned)] }
    }

    /// Names are other people's: what could move a terminal's cursor is taken out.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| without_controls(&cell)));
    }

    /// Each column as wide as its widest cell, two blanks between.
    pub fn into_text(self) -> String {
        let widths: [usize; N] = std::array::from_fn(|at| self.rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
        let line = |row: &[String; N]| {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
