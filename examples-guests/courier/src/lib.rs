//! Writes pieces as its rows tell it, and does in `mark-done` what the context of the batch tells it: it reads the output files, and asks to be called again. For tests of the
//! runtime; it needs no grant.
//!
//! A row is `{"file": "a.txt", "text": "a line", "bytes": 100}` (this number of bytes more), and its output says what `mark-done` alone could reach. A context is
//! `{"mark": [{"do": "files"}, {"do": "retry", "until": 3}]}`. The result of each step is logged.

use std::time::Duration;

use rowmill_guest::{AppInfo, Batch, BatchProcessor, Failure, Outcome, Row, Summary, host, output_files};
use serde::Deserialize;
use serde_json::{Value, json};

struct Courier;

#[derive(Debug, Deserialize)]
struct Piece {
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    text: String,
    #[serde(default)]
    bytes: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    mark: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Step {
    /// Lists the output files.
    Files,
    /// Reads one, this number of bytes at a time.
    Read {
        name: String,
        #[serde(default)]
        max: u32,
    },
    /// Opens one so often without dropping a reader.
    Open {
        name: String,
        times: usize,
    },
    /// Says which call this is.
    Attempt,
    /// Asks to be called again before this call,
    Retry {
        until: u32,
        /// after this number of milliseconds.
        #[serde(default)]
        after_ms: u64,
    },
    Permanent,
    Abort,
}

impl BatchProcessor for Courier {
    type Context = Context;
    type Input = Piece;
    type Output = Value;

    fn init(_: &AppInfo) -> Result<Self, String> {
        Ok(Self)
    }

    fn process_row(&mut self, _: &Batch<Context>, row: Row<Piece>) -> Result<Outcome<Value>, Failure> {
        let Piece { file, text, bytes } = row.input;
        let outcome = Outcome::success(json!([told(list()), host::mark_attempt()]));
        Ok(match file {
            Some(file) => outcome.piece(file, text + &"x".repeat(bytes)),
            None => outcome,
        })
    }

    fn mark_done(&mut self, summary: &Summary<Context>) -> Result<(), Failure> {
        summary.batch.context.mark.iter().try_for_each(take)
    }
}

fn take(step: &Step) -> Result<(), Failure> {
    let attempt = host::mark_attempt();
    let done = match step {
        Step::Files => told(list()),
        Step::Read { name, max } => told(read(name, *max)),
        Step::Open { name, times } => {
            let opened: Result<Vec<_>, _> = (0..*times).map(|_| output_files::open(name)).collect();
            told(opened.map(|readers| readers.len().into()))
        }
        Step::Attempt => attempt.into(),
        Step::Retry { until, after_ms } if attempt < Some(*until) => {
            return Err(Failure::retry("not yet").after(Duration::from_millis(*after_ms)));
        }
        Step::Retry { .. } => Value::Null,
        Step::Permanent => return Err(Failure::permanent("for good")),
        Step::Abort => return Err(Failure::abort_batch("no more")),
    };
    host::info(done.to_string());
    Ok(())
}

fn list() -> Result<Value, output_files::Error> {
    Ok(output_files::list()?.into_iter().map(|file| json!([file.name, file.size])).collect())
}

/// The sizes of the parts that it came in, and the beginning of its text.
fn read(name: &str, max: u32) -> Result<Value, output_files::Error> {
    let mut reader = output_files::open(name)?;
    let (mut parts, mut text) = (Vec::new(), Vec::new());
    loop {
        let part = reader.read(max)?;
        if part.is_empty() {
            break;
        }
        parts.push(part.len());
        text.extend(part);
        text.truncate(100);
    }
    Ok(json!({ "parts": parts, "text": String::from_utf8_lossy(&text) }))
}

fn told(done: Result<Value, output_files::Error>) -> Value {
    done.unwrap_or_else(|error| json!({ "error": format!("{error:?}") }))
}

rowmill_guest::export_batch_processor!(Courier);

#[cfg(test)]
mod tests {
    use super::*;
    use rowmill_guest::testing;

    #[test]
    fn it_reads_what_its_rows_wrote() {
        let context = json!({"mark": [{"do": "retry", "until": 2}, {"do": "files"}, {"do": "read", "name": "a.txt", "max": 4}]});
        let batch = testing::Batch::<Courier>::new().context(context);
        let rows = batch.run_rows([json!({"file": "a.txt", "text": "hello"}), json!({})]);
        assert_eq!(rows[0].answer().output, json!([{"error": "NotNow"}, null]));
        assert_eq!(batch.mark_done(&rows).result, Err(Failure::retry("not yet").after(Duration::ZERO)));
        let done = batch.attempt(2).mark_done(&rows);
        let logs: Vec<&str> = done.logs.iter().map(|log| log.text.as_str()).collect();
        assert_eq!(logs, ["null", r#"[["a.txt",6]]"#, r#"{"parts":[4,2],"text":"hello\n"}"#]);
    }
}
