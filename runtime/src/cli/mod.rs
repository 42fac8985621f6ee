//! The command line. stdout is data, everything else goes to stderr.

/// Says something to the one who waits, of which nothing commands a terminal. stderr may be closed while the work goes on (`2>&1 | head`), where `eprintln!` panics.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "{}", crate::model::printable(&format!($($text)*)));
    }};
}

pub mod apps;
pub mod batches;
pub mod bench;
pub mod compiler;
pub mod config;
pub mod deploy;
pub mod events;
pub mod export;
pub mod failed;
mod feed;
pub mod grants;
pub mod groups;
pub mod logs;
pub mod migrate;
mod moment;
pub mod policies;
pub mod processors;
mod progress;
pub mod prune;
pub mod query;
pub mod results;
pub mod retry;
pub mod run;
pub mod schedules;
mod signals;
mod source;
pub mod status;
pub mod submit;
mod table;
pub mod terms;
pub mod usage;
pub mod watch;
mod wiring;
pub mod work;
pub mod workers;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::model::printable;

/// All rows succeeded.
pub const EXIT_SUCCESS: u8 = 0;
/// Some rows failed, or the batch was aborted.
pub const EXIT_SOME_FAILED: u8 = 1;
/// It could not run; clap uses the same status for a wrong command line.
pub const EXIT_CANNOT_RUN: u8 = 2;

/// Runs other people's code over rows of data, safely.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Box<run::RunArgs>),
    Config(config::ConfigCommand),
    Migrate(migrate::MigrateCommand),
    Watch(watch::WatchCommand),
    Work(work::WorkCommand),
    Workers(workers::WorkersCommand),
    Apps(apps::AppsCommand),
    Deploy(deploy::DeployCommand),
    Processors(processors::ProcessorsCommand),
    Activate(processors::ActivateCommand),
    Deactivate(processors::DeactivateCommand),
    Rollback(processors::RollbackCommand),
    Diff(processors::DiffCommand),
    Submit(submit::SubmitCommand),
    Append(submit::AppendCommand),
    Release(submit::ReleaseCommand),
    Status(status::StatusCommand),
    Rows(results::RowsCommand),
    Results(results::ResultsCommand),
    Batches(batches::BatchesCommand),
    Failed(failed::FailedCommand),
    Events(events::EventsCommand),
    Export(export::ExportCommand),
    Retry(retry::RetryCommand),
    Logs(logs::LogsCommand),
    Abort(status::AbortCommand),
    Priority(terms::PriorityCommand),
    Prune(prune::PruneCommand),
    Policies(policies::PoliciesCommand),
    Pause(policies::PauseCommand),
    Resume(policies::ResumeCommand),
    Groups(groups::GroupsCommand),
    Group(groups::GroupCommand),
    Query(query::QueryCommand),
    Answer(query::AnswerCommand),
    Schedules(schedules::SchedulesCommand),
    Usage(usage::UsageCommand),
    Bench(bench::BenchCommand),
    #[command(hide = true)]
    CompileProcessor(compiler::CompilerCommand),
}

/// Logs go to stderr; `ROWMILL_LOG` chooses which, as in `ROWMILL_LOG=debug` or `ROWMILL_LOG=rowmill::worker=trace`.
pub fn start_log() {
    let filter = EnvFilter::try_from_env("ROWMILL_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // No colours: they are commands to the terminal, and texts of guests have none.
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| LogLines).with_ansi(false).log_internal_errors(false).init();
}

/// Each event is one line, whatever texts of guests are in it: none of them makes a line of its own, or commands a terminal.
struct LogLines;

impl LogLines {
    fn line(event: &str) -> String {
        printable(event.strip_suffix('\n').unwrap_or(event)).replace('\n', "\\n")
    }
}

impl std::io::Write for LogLines {
    /// An event comes as a whole.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        writeln!(std::io::stderr(), "{}", LogLines::line(&String::from_utf8_lossy(event))).map(|()| event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Says why the program could not run.
pub fn say_error(error: &anyhow::Error) {
    say!("rowmill: {error:#}");
}

/// Prints data, of which nothing commands a terminal. Whoever reads it may have enough of it: that is no failure of the run.
fn print_data(line: &str) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write};
    match writeln!(std::io::stdout(), "{}", printable(line)) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Cli, LogLines};

    /// clap writes a line break for each `{n}` of a help text.
    #[test]
    fn no_help_has_a_placeholder_that_clap_replaces() {
        fn texts(command: &clap::Command) -> Vec<String> {
            let of_command = [command.get_about(), command.get_long_about(), command.get_after_help(), command.get_after_long_help()];
            let of_arguments = command.get_arguments().flat_map(|argument| [argument.get_help(), argument.get_long_help()]);
            let own = of_command.into_iter().chain(of_arguments).flatten().map(ToString::to_string);
            own.chain(command.get_subcommands().flat_map(texts)).collect()
        }
        let texts = texts(&Cli::command());
        assert!(texts.len() > 100, "{}", texts.len());
        assert_eq!(texts.iter().find(|text| text.contains("{n}")), None);
    }

    #[test]
    fn an_event_is_one_line_whatever_a_guest_says() {
        let event = "WARN worker: init: \x1b[2J\0\r\n2026-11-26T00:00:00Z INFO worker: all is well\u{202e}\n";
        assert_eq!(LogLines::line(event), "WARN worker: init: \\u001b[2J\\u0000 \\n2026-11-26T00:00:00Z INFO worker: all is well\\u202e");
    }
}
