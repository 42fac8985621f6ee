//! What apps are granted: nothing else is reached, limits hold, secrets are not told, and whatever fails, it is the row and not the host.

mod apps;
mod config;
mod directories;
mod http;
mod key_value;
mod objects;
mod sql;
pub mod web;

use std::sync::{Arc, LazyLock};

use rowmill::grants::{GrantSettings, Granter};
use rowmill::model::{Grants, Limits, ProcessorKind, RowRun};
use rowmill::sandbox::{Capabilities, Processor, Session, SessionSpec};
use serde_json::Value;

use crate::support::guests;
use crate::support::sessions::{batch, limits, output, processor, run_in, spec};

/// The guest that uses what is granted.
fn reaching() -> &'static Processor {
    static REACHING: LazyLock<Processor> = LazyLock::new(|| processor(&guests::read("reaching")));
    &REACHING
}

fn session_with(capabilities: Capabilities, limits: Limits) -> Session {
    let spec = SessionSpec { capabilities: Arc::new(capabilities), ..spec(batch(ProcessorKind::Batch, "op", "{}"), limits) };
    Session::new(reaching().clone(), spec)
}

async fn capabilities(app: &str, grants: &Grants, settings: &GrantSettings) -> Capabilities {
    grants.check().unwrap();
    Granter::new(settings.clone()).capabilities(app, grants).await.unwrap()
}

/// Runs rows, each a list of steps, in one instance.
async fn run_rows(grants: &Grants, settings: &GrantSettings, rows: &[Value]) -> Vec<RowRun> {
    let session = session_with(capabilities("tests", grants, settings).await, limits());
    let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    run_in(session, &rows.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// What came of the steps of one row.
#[track_caller]
fn came_of(run: &RowRun) -> Vec<Value> {
    serde_json::from_str(output(run)).unwrap()
}

/// Runs one row, and returns what came of its steps.
async fn run_steps(grants: &Grants, settings: &GrantSettings, steps: Value) -> Vec<Value> {
    came_of(&run_rows(grants, settings, &[steps]).await[0])
}
