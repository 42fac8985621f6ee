//! The `rowmill` program.

use std::process::ExitCode;

use clap::Parser;
use rowmill::cli::{
    Cli, Command, EXIT_CANNOT_RUN, apps, batches, bench, compiler, config, deploy, events, export, failed, groups, logs, migrate, policies,
    processors, prune, query, results, retry, run, schedules, status, submit, terms, usage, watch, work, workers,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    rowmill::cli::start_log();
    let ended = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Work(args) => work::run(&args),
        Command::Workers(args) => workers::run(&args),
        Command::Apps(args) => apps::run(&args),
        Command::Deploy(args) => deploy::run(&args),
        Command::Processors(args) => processors::run(&args),
        Command::Activate(args) => processors::activate(&args),
        Command::Deactivate(args) => processors::deactivate(&args),
        Command::Rollback(args) => processors::rollback(&args),
        Command::Diff(args) => processors::diff(&args),
        Command::Submit(args) => submit::submit(&args),
        Command::Append(args) => submit::append(&args),
        Command::Release(args) => submit::release(&args),
        Command::Status(args) => status::status(&args),
        Command::Rows(args) => results::rows(&args),
        Command::Results(args) => results::results(&args),
        Command::Batches(args) => batches::run(&args),
        Command::Failed(args) => failed::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Retry(args) => retry::run(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Abort(args) => status::abort(&args),
        Command::Priority(args) => terms::priority(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Policies(args) => policies::run(&args),
        Command::Pause(args) => policies::pause(&args),
        Command::Resume(args) => policies::resume(&args),
        Command::Groups(args) => groups::list(&args),
        Command::Group(args) => groups::show(&args),
        Command::Query(args) => query::query(&args),
        Command::Answer(args) => query::answer(&args),
        Command::Schedules(args) => schedules::run(&args),
        Command::Usage(args) => usage::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::CompileProcessor(args) => compiler::run(&args),
    };
    ended.unwrap_or_else(|error| {
        rowmill::cli::say_error(&error);
        ExitCode::from(EXIT_CANNOT_RUN)
    })
}
