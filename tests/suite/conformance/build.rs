//! Batches, rows, claims and results, plain ones: a test changes what it is about.

use std::time::Duration;

use rowmill::model::{
    BatchCounts, BatchId, ClaimRequest, CodeQuota, JsonText, LeasedRow, NewBatch, NewRow, NewVersion, Piece, ProcessorKind, RowResult, RowStatus,
    Terms, Verdict,
};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MILLISECOND: Duration = Duration::from_millis(1);
/// How long leases live in these tests.
pub const TTL: Duration = Duration::from_secs(30);
pub const MIB: usize = 1 << 20;

pub fn batch() -> NewBatch {
    NewBatch {
        id: BatchId::generate(),
        app: "bank".to_owned(),
        op: "post".to_owned(),
        kind: ProcessorKind::Batch,
        processor_version: 1,
        processor_digest: "0123456789abcdef".repeat(4),
        context: JsonText::default(),
        terms: Terms::default(),
        hold: false,
        after: None,
        group: None,
        request_digest: None,
        as_found: None,
    }
}

/// A version that serves from then on.
pub fn version(app: &str, op: &str, kind: ProcessorKind, digest: &str) -> NewVersion {
    NewVersion {
        app: app.to_owned(),
        op: op.to_owned(),
        kind,
        digest: digest.to_owned(),
        size_bytes: 1_000,
        note: None,
        activate: true,
        quota: CodeQuota::default(),
    }
}

pub fn held() -> NewBatch {
    NewBatch { hold: true, ..batch() }
}

pub fn query() -> NewBatch {
    NewBatch { kind: ProcessorKind::SlowQuery, ..batch() }
}

/// Lines from 1 on.
pub fn rows(count: u32) -> Vec<NewRow> {
    (1..=count).map(row).collect()
}

pub fn rows_with_lines(lines: &[u32]) -> Vec<NewRow> {
    lines.iter().copied().map(row).collect()
}

/// A row that says its line.
pub fn row(line: u32) -> NewRow {
    row_with(line, format!(r#"{{"line":{line}}}"#))
}

pub fn row_with(line: u32, input: String) -> NewRow {
    NewRow::new(line, JsonText::check(input).unwrap())
}

/// JSON of exactly this many bytes.
pub fn json_of(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

/// One lease by one slot.
pub fn request() -> ClaimRequest {
    ClaimRequest {
        worker: "worker".to_owned(),
        kind: None,
        apps_except: Vec::new(),
        leases_max: 1,
        rows_max: 100,
        target: Duration::from_millis(250),
        slots: 1,
        ttl: TTL,
    }
}

pub fn by(worker: &str) -> ClaimRequest {
    ClaimRequest { worker: worker.to_owned(), kind: None, ..request() }
}

pub fn success(row: &LeasedRow) -> RowResult {
    outcome(row, RowStatus::Success)
}

pub fn failure(row: &LeasedRow) -> RowResult {
    outcome(row, RowStatus::Failed)
}

/// A result that says its row.
pub fn outcome(row: &LeasedRow, status: RowStatus) -> RowResult {
    let output = Some(format!(r#"{{"row":{}}}"#, row.row_no));
    result(row, Verdict::Final { status, output, messages: Vec::new(), pieces: Vec::new() })
}

pub fn retry(row: &LeasedRow, after: Duration) -> RowResult {
    result(row, Verdict::Retry { after })
}

pub fn result(row: &LeasedRow, verdict: Verdict) -> RowResult {
    RowResult { row_no: row.row_no, attempt: row.attempt, fuel: 10, input_bytes: u32::try_from(row.input.len()).unwrap(), log: None, verdict }
}

/// A success with pieces for output files.
pub fn with_pieces(row: &LeasedRow, pieces: &[(&str, &str)]) -> RowResult {
    let pieces = pieces.iter().map(|(file, text)| Piece { file: (*file).to_owned(), text: (*text).to_owned() }).collect();
    result(row, Verdict::Final { status: RowStatus::Success, output: None, messages: Vec::new(), pieces })
}

/// A success with this output.
pub fn with_output(row: &LeasedRow, output: String) -> RowResult {
    result(row, Verdict::Final { status: RowStatus::Success, output: Some(output), messages: Vec::new(), pieces: Vec::new() })
}

pub fn counts(rows: u64, success: u64, failed: u64, aborted: u64) -> BatchCounts {
    BatchCounts { rows, success, failed, aborted }
}
