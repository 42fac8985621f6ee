use super::RowStatus;

/// What a row wrote to its log, stdout and stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowLog {
    pub row_no: u32,
    pub line: u32,
    pub status: RowStatus,
    pub attempts: u32,
    /// As the guest wrote it, cut to the limit: for a terminal see [`super::visible`].
    pub log: String,
}
