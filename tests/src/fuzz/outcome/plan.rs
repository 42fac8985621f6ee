//! A batch, and what is to become of each of its rows.

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use rowmill::model::{
    BatchId, JsonText, LeasedRow, Message, NewBatch, NewRow, Piece, ProcessorKind, RecordedOutcome, RowResult, RowStatus, Terms, Verdict,
};

const ROWS_MAX: usize = 6;
const ITEMS_MAX: usize = 4;
/// About what a guest burns in a quarter of an hour. What all rows of an operation used in an hour is added up, and millions of these fit.
const FUEL_MAX: u64 = 1_000_000_000_000;
/// Names of files have 128 bytes at most before they come to a store, and no control characters, by which the stores order them differently.
const FILE_NAME_MAX: usize = 128;
/// Depths of JSON up to and above what is read.
const DEPTH_MAX: usize = 140;

#[derive(Debug)]
pub struct Plan {
    app: String,
    op: String,
    context: JsonText,
    rows: Vec<Row>,
    lease_rows: u32,
    took_micros: u32,
    abort_reason: Option<String>,
    mark_error: Option<String>,
}

#[derive(Debug)]
struct Row {
    input: JsonText,
    rejected: Option<String>,
    /// So many attempts ask for another one.
    retries: u32,
    /// The last attempt.
    last: RowResult,
}

impl<'a> Arbitrary<'a> for Plan {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Plan> {
        let count = u.int_in_range(1..=ROWS_MAX)?;
        let rows: Vec<Row> = (0..count).map(|_| row(u)).collect::<Result<_>>()?;
        Ok(Plan {
            app: text(u)?,
            op: text(u)?.to_lowercase(),
            context: json(u)?,
            rows,
            lease_rows: u.int_in_range(1..=5)?,
            took_micros: u.arbitrary()?,
            abort_reason: optional(u, text)?,
            mark_error: optional(u, text)?,
        })
    }
}

impl Plan {
    pub fn batch(&self, id: BatchId) -> NewBatch {
        NewBatch {
            id,
            app: self.app.clone(),
            op: self.op.clone(),
            kind: ProcessorKind::Batch,
            processor_version: 1,
            processor_digest: "0123456789abcdef".repeat(4),
            context: self.context.clone(),
            terms: Terms::default(),
            hold: false,
            after: None,
            group: None,
            request_digest: None,
            as_found: None,
        }
    }

    pub fn new_rows(&self) -> Vec<NewRow> {
        (1..).zip(&self.rows).map(|(line, row)| NewRow { rejected: row.rejected.clone(), ..NewRow::new(line, row.input.clone()) }).collect()
    }

    pub fn lease_rows(&self) -> u32 {
        self.lease_rows
    }

    pub fn took_micros(&self) -> u64 {
        self.took_micros.into()
    }

    pub fn abort_reason(&self) -> Option<String> {
        self.abort_reason.clone()
    }

    pub fn mark_error(&self) -> Option<&str> {
        self.mark_error.as_deref()
    }

    fn row(&self, row_no: u32) -> &Row {
        &self.rows[row_no as usize - 1]
    }

    /// What a worker gets is what was submitted.
    pub fn check_leased(&self, leased: &LeasedRow) {
        let Row { input, rejected, .. } = self.row(leased.row_no);
        assert_eq!((leased.input.as_str(), &leased.rejected), (input.as_str(), rejected), "{self:?}");
    }

    pub fn result(&self, leased: &LeasedRow) -> RowResult {
        let row = self.row(leased.row_no);
        let result = RowResult { row_no: leased.row_no, attempt: leased.attempt, ..row.last.clone() };
        if leased.attempt > row.retries { result } else { RowResult { verdict: Verdict::Retry { after: Duration::ZERO }, ..result } }
    }

    /// What is to be read of each row.
    pub fn expected(&self) -> Vec<RecordedOutcome> {
        let expected = |(row_no, row): (u32, &Row)| {
            let Verdict::Final { status, output, messages, .. } = &row.last.verdict else { unreachable!("the last attempt is final") };
            RecordedOutcome {
                row_no,
                line: row_no,
                status: Some(*status),
                output: output.clone(),
                messages: messages.clone(),
                attempts: row.retries + 1,
                fuel: row.last.fuel,
                log: row.last.log.clone(),
                input: row.input.as_str().to_owned(),
                rejected: row.rejected.clone(),
            }
        };
        (1..).zip(&self.rows).map(expected).collect()
    }

    /// The pieces of each row that adds text to a file.
    pub fn pieces(&self) -> BTreeMap<u32, Vec<Piece>> {
        let of_row = |(row_no, row): (u32, &Row)| match &row.last.verdict {
            Verdict::Final { pieces, .. } => {
                let kept: Vec<Piece> = pieces.iter().filter(|piece| !piece.is_blank()).cloned().collect();
                (!kept.is_empty()).then_some((row_no, kept))
            }
            _ => None,
        };
        (1..).zip(&self.rows).filter_map(of_row).collect()
    }
}

fn row(u: &mut Unstructured<'_>) -> Result<Row> {
    let verdict = Verdict::Final {
        status: if u.arbitrary()? { RowStatus::Success } else { RowStatus::Failed },
        output: optional(u, json)?.map(JsonText::into_string),
        messages: some(u, |u| Ok(Message { id: u.arbitrary()?, code: text(u)?, field: optional(u, text)?, values: some(u, text)? }))?,
        pieces: some(u, |u| Ok(Piece { file: file_name(u)?, text: text(u)? }))?,
    };
    let last =
        RowResult { row_no: 0, attempt: 0, fuel: u.int_in_range(0..=FUEL_MAX)?, input_bytes: u.arbitrary()?, log: optional(u, text)?, verdict };
    Ok(Row { input: json(u)?, rejected: optional(u, text)?, retries: u.int_in_range(0..=5)? / 4 * u.int_in_range(0..=2)?, last })
}

fn some<T>(u: &mut Unstructured<'_>, one: impl Fn(&mut Unstructured<'_>) -> Result<T>) -> Result<Vec<T>> {
    (0..u.int_in_range(0..=ITEMS_MAX)?).map(|_| one(u)).collect()
}

fn optional<T>(u: &mut Unstructured<'_>, one: impl Fn(&mut Unstructured<'_>) -> Result<T>) -> Result<Option<T>> {
    if u.arbitrary()? { Ok(Some(one(u)?)) } else { Ok(None) }
}

/// Some of what databases, terminals and our own encoding of texts make much of.
const PARTS: [&str; 16] =
    ["\0", "\u{1a}", "\u{1a}2", "'", "\"", "\\", "\\u0000", "\u{feff}", "\u{10ffff}", "\u{1b}[2J", "\r\n", "ä", "$1", "?", "\"code\":\"trap\"", "x"];

fn text(u: &mut Unstructured<'_>) -> Result<String> {
    let mut text = String::new();
    for _ in 0..u.int_in_range(0..=ITEMS_MAX)? {
        match u.int_in_range(0..=8)? {
            0..=4 => text.push_str(u.choose(&PARTS)?),
            5 => text.push_str(&u.choose(&PARTS)?.repeat(u.int_in_range(0..=3_000)?)),
            _ => text.push_str(u.arbitrary()?),
        }
    }
    Ok(text)
}

fn file_name(u: &mut Unstructured<'_>) -> Result<String> {
    let mut name: String = text(u)?.chars().filter(|character| !character.is_control()).collect();
    name.truncate(name.floor_char_boundary(FILE_NAME_MAX));
    Ok(name)
}

/// Whatever counts as JSON.
fn json(u: &mut Unstructured<'_>) -> Result<JsonText> {
    let text = match u.int_in_range(0..=6)? {
        0 => text(u)?,
        1 => serde_json::to_string(&text(u)?).expect("a text is JSON"),
        2 => {
            let (depth, (open, close)) = (u.int_in_range(0..=DEPTH_MAX)?, u.choose(&[("[", "]"), ("{\"a\":", "}")])?);
            format!("{}1{}", open.repeat(depth), close.repeat(depth))
        }
        3 => format!("{}{}e{}", if u.arbitrary()? { "-" } else { "" }, u.arbitrary::<u64>()?, u.arbitrary::<i32>()?),
        4 => format!("\"\\u{:04x}\"", u.arbitrary::<u16>()?),
        5 => format!("{{\"a\":1,\"a\":{}}}", u.arbitrary::<i128>()?),
        _ => String::new(),
    };
    Ok(JsonText::check(text).unwrap_or_default())
}
