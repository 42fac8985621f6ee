/// A place in the results of a batch: the next page begins after it. One from [`RowPieces`] is good for the next pieces only, since `line` may be 0 there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultCursor {
    pub line: u32,
    pub row_no: u32,
}

/// Pieces of output files of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowPieces {
    pub at: ResultCursor,
    /// Each piece with the position of its file in [`Store::list_file_names`](super::Store::list_file_names).
    pub pieces: Vec<(usize, String)>,
}
