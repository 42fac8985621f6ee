//! `rowmill prune`: what is not kept any longer goes.

use std::process::ExitCode;

use clap::Args;

use super::config::ConfigArgs;
use super::table::Table;
use super::terms::parse_name;
use super::wiring::{Parts, block_on};
use super::{EXIT_SUCCESS, print_data};
use crate::config::show_size;
use crate::prune::DueOp;

/// Remove what is not kept any longer: output files, inputs, outcomes, and whole batches.
///
/// How long they are kept is said by policies (`rowmill policies set --keep-…`), and for all apps by the settings keep.*. Workers do the same by themselves; this
/// does it now. It goes in small steps that hold nobody up, and can be stopped at any time: the rest is gone on with later.
#[derive(Debug, Args)]
pub struct PruneCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only of this app.
    pub app: Option<String>,
    /// Only of this operation.
    #[arg(value_parser = parse_name)]
    pub op: Option<String>,
    /// Only show what would go.
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Prunes, or shows what would go.
///
/// # Errors
/// Why it could not.
pub fn run(args: &PruneCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        let (app, op) = (args.app.as_deref(), args.op.as_deref());
        if args.dry_run {
            print_due(&parts.jobs.list_due(app, op).await?, args.json)?;
        } else {
            let report = parts.jobs.prune(app, op).await?;
            if args.json {
                print_data(&serde_json::to_string(&report)?)?;
            } else {
                print_data(&format!(
                    "removed {} batches and parts of {} others: {} rows, {} objects",
                    report.batches, report.parts_of, report.rows, report.objects
                ))?;
            }
        }
        parts.close().await;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

fn print_due(due: &[DueOp], json: bool) -> anyhow::Result<()> {
    if json {
        return print_data(&serde_json::to_string(due)?);
    }
    let mut table = Table::new(["APP", "OP", "BATCHES", "THEIR ROWS", "FILES OF", "INPUTS OF", "OUTCOMES OF", "OBJECTS", "BYTES"]);
    for DueOp { op, due, .. } in due {
        table.row([
            op.app.clone(),
            op.op.clone(),
            due.batches.to_string(),
            due.batch_rows.to_string(),
            batches(due.files_of, None),
            batches(due.inputs_of, Some(due.input_rows)),
            batches(due.outcomes_of, Some(due.outcome_rows)),
            due.objects.to_string(),
            show_size(due.object_bytes),
        ]);
    }
    print_data(&table.into_text())
}

/// Batches of which a part goes, and their rows.
fn batches(count: u64, rows: Option<u64>) -> String {
    match rows {
        Some(rows) if count > 0 => format!("{count} ({rows} rows)"),
        _ => count.to_string(),
    }
}
