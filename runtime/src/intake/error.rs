use super::nature::{Delimiter, Nature};
use super::records::Fault;

/// Why a file cannot be taken. Nothing of it is taken then.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("it is empty")]
    Empty,
    #[error("it has only empty lines")]
    OnlyEmptyLines,
    #[error("it has a header and no record")]
    HeaderOnly,
    #[error("it has no line with a value")]
    NoValue,
    #[error("columns {first} and {second} of its header are both named {name:?}: give them different names")]
    EqualNames { name: String, first: usize, second: usize },
    #[error("its header, in line {line}, {fault}")]
    HeaderFault { fault: FaultText, line: u64 },
    #[error("its header has {columns} columns, and a row with all their names would be larger than 1 MiB")]
    TooManyColumns { columns: usize },
    #[error("line {line} is sep=…, which only some spreadsheets understand: remove that line, and separate the columns by commas")]
    SepLine { line: u64 },
    #[error(
        "its columns are separated by {} and not by commas: its header is 1 column with commas and {columns} with {}; save it with commas, or convert it: mlr \
         --icsv --ifs {} --ocsv cat FILE",
        .delimiter.plural(), .delimiter.plural(), .delimiter.for_miller()
    )]
    OtherDelimiter { delimiter: Delimiter, columns: usize },
    #[error("it is not UTF-8: line {line} has a byte that cannot be read as text; save it as UTF-8")]
    NotUtf8 { line: u64 },
    #[error("it has a quote that is never closed: line {line} opens it")]
    OpenQuote { line: u64 },
    #[error("the quote that line {line} opens is not closed within {limit_mib} MiB: is its closing quote missing?")]
    OpenQuoteTooLarge { line: u64, limit_mib: usize },
    #[error(
        "line {line} has text behind the closing quote of a field that line {opened} opens, and it is not clear where the record ends: write each quote inside a \
         value twice, and close each field that is in quotes"
    )]
    AmbiguousQuote { opened: u64, line: u64 },
    #[error("line {line} ends in a line feed, but the lines before it end in a carriage return alone: let all lines end alike")]
    MixedLineEnds { line: u64 },
    #[error("the record that begins in line {line} is larger than {limit_mib} MiB")]
    TooLarge { line: u64, limit_mib: usize },
    #[error(
        "line {line} is a row of a list of failed rows with its line, but the first row of the file is not: keep such rows in a file of their own"
    )]
    MixedList { line: u64 },
    #[error("it has more than {} records", u32::MAX)]
    TooMany,
    #[error("it is a list of failed rows, and the record in line {line} {reason}: there each record has all columns of the header")]
    ListRecord { line: u64, reason: String },
    #[error(
        "it is a list of failed rows, and in line {line} the number of the row ({name}) is {found}: it must be a whole number from 1 to {}; to number the rows \
         anew, remove it from all of them",
        u32::MAX
    )]
    ListLine { line: u64, name: &'static str, found: String },
    #[error("it is {}", .nature.and_how_to_convert())]
    OtherNature { nature: Nature },
    #[error(
        "its header has the column {found:?}, which is nearly {meant}: name it {meant} if the file is a list of failed rows, else give it a name that is \
         not like it"
    )]
    ListColumnName { found: String, meant: &'static str },
    #[error(
        "its header has {found} of a list of failed rows, but not {missing}: put the columns of the list back, or, if the file is no such list, give its own \
         columns other names"
    )]
    PartOfList { found: String, missing: String },
    #[error(
        "it is a list of failed rows, and in the row in line {line} {name} is larger than {limit_mib} MiB, which rowmill never writes: take the row from the list as \
         it was written, or remove it"
    )]
    ListPart { line: u64, name: &'static str, limit_mib: usize },
    #[error("line {line} is not as the rows of a list of failed rows are: {problem}")]
    ListShape { line: u64, problem: String },
    #[error("it is not text: byte {at}, in line {line}, is NUL; if it is UTF-16, save it as UTF-8")]
    Nul { at: u64, line: u64 },
    #[error("it begins with two byte order marks: remove one")]
    TwoByteOrderMarks,
    #[error(
        "its header, in line {line}, begins with a byte order mark, which stands only at the beginning of a file: remove it{}",
        if *.in_quotes { " from the name of the first column" } else { "" }
    )]
    HeaderMark { line: u64, in_quotes: bool },
    #[error("it is one JSON array, and NDJSON has one value per line: jq -c '.[]' FILE makes NDJSON of it")]
    JsonArray,
    #[error("the JSON value that line {line} begins goes on in the next line, and NDJSON has one value per line: jq -c . FILE makes NDJSON of it")]
    JsonOverLines { line: u64 },
    #[error("it is not compressed with gzip, though it is called so{}", .nature.map_or_else(String::new, |nature| format!(": it is {nature}")))]
    NotGzip { nature: Option<Nature> },
    #[error("it is compressed with gzip, and not called so: its name should end in .gz, or its format be csv.gz or ndjson.gz")]
    IsGzip,
    #[error("its compressed data ends too early: it was cut off")]
    CutOff,
    #[error("its compressed data is damaged: {reason}")]
    Damaged { reason: String },
    #[error("behind its compressed data, at byte {at}, there is data that is not gzip: remove it")]
    Trailing { at: u64 },
    #[error("there are more than {limit} bytes in its compressed data, which is the limit (intake.inflated_max)")]
    InflatedTooLarge { limit: u64 },
    #[error("its compressed data grows to more than {limit} times its size, which is the limit (intake.ratio_max)")]
    RatioTooHigh { limit: u64 },
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
}

/// A fault of a record as a text.
#[derive(Debug)]
pub struct FaultText(pub(super) Fault);

impl std::fmt::Display for FaultText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
