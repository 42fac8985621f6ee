//! `rowmill migrate`: the schema of the store.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;

use super::config::ConfigArgs;
use super::{EXIT_SOME_FAILED, EXIT_SUCCESS};
use crate::config::StoreUrl;
use crate::model::SystemClock;
use crate::store::{PgSettings, PgStore, SchemaState, SqliteStore};

/// Bring the schema of the store to this program's version.
///
/// PostgreSQL: everything stands in a schema of its own, named rowmill. Workers of the old version may run until the schema is changed, and refuse to start
/// afterwards. SQLite brings itself to the program's version whenever it is opened.
///
/// Exit status: 0 the schema is this program's, 1 it is not (with --check), 2 it could not be read or changed.
#[derive(Debug, Args)]
pub struct MigrateCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Change nothing: say whether the schema is this program's.
    #[arg(long)]
    pub check: bool,
}

/// Migrates, or looks.
///
/// # Errors
/// Why the schema could not be read or changed.
pub fn run(args: &MigrateCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the threads")?;
    runtime.block_on(async {
        match &config.store.url {
            // To open it would change it.
            StoreUrl::Sqlite(file) if args.check => {
                say!(
                    "a SQLite store, such as {}, brings itself to the program's version whenever it is opened: there is nothing to check",
                    file.display()
                );
            }
            StoreUrl::Sqlite(file) => {
                let store = SqliteStore::open(file, Arc::new(SystemClock)).await.with_context(|| format!("the store is {}", file.display()))?;
                store.close().await;
                say!("the store's schema is this program's");
            }
            StoreUrl::Postgres(url) => {
                let settings = PgSettings { url: url.expose().to_owned(), connections: 1, pooler: config.store.pooler };
                let shown = url.as_shown_url();
                if !args.check {
                    PgStore::migrate(&settings).await.with_context(|| format!("the store is {shown}"))?;
                }
                let state = PgStore::schema_state(&settings).await.with_context(|| format!("the store is {shown}"))?;
                say!("{state}");
                if state != SchemaState::Current {
                    return Ok(ExitCode::from(EXIT_SOME_FAILED));
                }
            }
        }
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}
