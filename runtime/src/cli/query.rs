//! `rowmill query`: a slow query.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use serde_json::value::RawValue;

use super::config::ConfigArgs;
use super::signals::Stop;
use super::terms::{TermsArgs, parse_name};
use super::wiring::{Parts, block_on};
use super::{EXIT_SOME_FAILED, EXIT_SUCCESS, print_data};
use crate::jobs::{JobError, QueryRequest, QueryResult, QueryState};
use crate::model::{BatchId, BatchStatus, JsonText, Message, ProcessorKind, without_controls};

/// Submit a slow query, wait for its answer and print it.
///
/// Over SQLite, where no worker can run beside this, also run it. With --no-wait its id is printed instead; `rowmill answer` asks for the answer.
///
/// Exit status: 0 it succeeded, 1 it failed or was aborted, 2 it could not be submitted, 130 or 143 it was not waited for any longer.
#[derive(Debug, Args)]
pub struct QueryCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_parser = parse_name)]
    pub app: String,
    /// The operation; case does not matter.
    #[arg(value_parser = parse_name)]
    pub op: String,
    /// The input, as JSON.
    #[arg(value_name = "JSON")]
    pub input: String,
    /// What the processor is told beside it, as JSON.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub context: String,
    #[command(flatten)]
    pub terms: TermsArgs,
    /// A name for this query: when it is asked again it is there once. With another input or other options the key is refused.
    #[arg(long, value_name = "KEY", value_parser = parse_name)]
    pub key: Option<String>,
    /// Print its id, and do not wait.
    #[arg(long)]
    pub no_wait: bool,
    /// Print JSON: id, status, output, messages, files and abort_reason.
    #[arg(long)]
    pub json: bool,
}

/// Print what a slow query returned.
///
/// Exit status: 0 it succeeded, 1 it failed or was aborted, 3 it has not ended: try later.
#[derive(Debug, Args)]
pub struct AnswerCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_name = "QUERY")]
    pub query: BatchId,
    /// Print JSON: id, status, output, messages, files and abort_reason.
    #[arg(long)]
    pub json: bool,
}

/// It has not ended.
const EXIT_TRY_LATER: u8 = 3;

/// Submits, and waits.
///
/// # Errors
/// Why it could not be submitted.
pub fn query(args: &QueryCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    let context = JsonText::check(args.context.as_str()).context("--context")?;
    let input = JsonText::check(args.input.as_str()).context("the input")?;
    let (start_at, deadline_at) = args.terms.times(args.key.is_some())?;
    block_on(async {
        let stop = Stop::listen()?;
        let parts = Parts::open(&config).await?;
        let request = QueryRequest {
            terms: args.terms.terms.terms(),
            start_at,
            deadline_at,
            key: args.key.clone(),
            ..QueryRequest::new(&args.app, &args.op, input).with_context(context)
        };
        let id = parts.jobs.slow_query_submit(request).await?;
        if args.no_wait {
            print_data(&if args.json { json!({ "id": id }).to_string() } else { id.to_string() })?;
            return Ok(ExitCode::from(EXIT_SUCCESS));
        }
        let no_worker = parts.say_if_no_worker(ProcessorKind::SlowQuery);
        let working = parts.work_if_alone();
        let answered = async {
            let result = parts.jobs.wait_for_query(id).await?;
            if !parts.store_is_shared {
                // No other worker tells its processor.
                parts.jobs.wait_until_done(id).await?;
            }
            Ok::<_, JobError>(QueryState::Done(result))
        };
        let state = tokio::select! {
            state = answered => Some(state?),
            () = stop.asked() => None,
        };
        drop(no_worker);
        working.end().await?;
        match state {
            Some(state) => print_state(id, &state, args.json),
            None => {
                say!("stopped waiting; its answer, later: rowmill answer {id}");
                Ok(ExitCode::from(stop.exit_status()))
            }
        }
    })
}

/// Asks for the answer.
///
/// # Errors
/// Why it could not be read.
pub fn answer(args: &AnswerCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        print_state(args.query, &parts.jobs.slow_query_done(args.query).await?, args.json)
    })
}

fn print_state(id: BatchId, state: &QueryState, json: bool) -> anyhow::Result<ExitCode> {
    match state {
        QueryState::TryLater(progress) => {
            let said = progress.said.as_ref().map_or_else(String::new, |(percent, text)| format!(", {percent}% {}", without_controls(text)));
            say!("{}{said}: try later", progress.status.as_str());
            if json {
                print_data(&json!({ "id": id, "status": progress.status, "said": progress.said }).to_string())?;
            }
            Ok(ExitCode::from(EXIT_TRY_LATER))
        }
        QueryState::Done(result) => {
            print_result(id, result, json)?;
            Ok(ExitCode::from(if result.status == BatchStatus::Success { EXIT_SUCCESS } else { EXIT_SOME_FAILED }))
        }
    }
}

fn print_result(id: BatchId, result: &QueryResult, json: bool) -> anyhow::Result<()> {
    if json {
        let output = result.output.as_deref().map(serde_json::from_str::<&RawValue>).transpose()?;
        let text = json!({ "id": id, "status": result.status, "output": output, "messages": result.messages, "files": result.files, "abort_reason": result.abort_reason });
        return print_data(&text.to_string());
    }
    if result.status != BatchStatus::Success {
        let reason = result.abort_reason.as_ref().map_or_else(String::new, |reason| format!(": {}", without_controls(reason)));
        say!("{}{reason}", result.status.as_str());
    }
    for message in result.messages.iter().map(Message::text) {
        say!("{}", without_controls(&message));
    }
    for file in &result.files {
        say!("file {}: {} bytes, {}", without_controls(&file.name), file.size_bytes, file.object);
    }
    match &result.output {
        Some(output) => print_data(output),
        None => Ok(()),
    }
}
