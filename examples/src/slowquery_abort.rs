//! A slow query that computes without end is aborted. Its code is stopped: the next one gets its slot, which is the only one.

use std::time::Duration;

use rowmill::jobs::{QueryRequest, QueryState};
use rowmill::model::{App, JsonText, Limits};
use rowmill::worker::WorkerSettings;
use serde_json::json;

use crate::stage::{Place, Stage, guest};

pub async fn run(place: &Place) -> anyhow::Result<()> {
    let settings = WorkerSettings { query_slots: 1, ..WorkerSettings::local() };
    Stage::open_with(place, "slowquery-abort", settings).await?.run(abort).await
}

async fn abort(stage: &Stage) -> anyhow::Result<()> {
    let jobs = &stage.jobs;
    // With less fuel or time its limits would end it.
    let limits = Limits { fuel: 1_000_000_000_000_000, timeout: Duration::from_secs(3_600), ..Limits::default() };
    jobs.register_app(&App { limits: Some(limits), ..App::named("bank") }).await?;
    jobs.register_slow_query_processor("bank", "count", guest("chronicle-query")?).await?;
    let count = |to: u64| JsonText::check(json!({"do": "succeed", "say": "counted", "spin": to}).to_string());
    let endless = jobs.slow_query_submit(QueryRequest::new("bank", "count", count(u64::MAX)?)).await?;

    // It tells its progress before it begins to count.
    let (status, (percent, text)) = loop {
        match jobs.slow_query_done(endless).await? {
            QueryState::TryLater(progress) => {
                if let Some(said) = progress.said {
                    break (progress.status, said);
                }
            }
            QueryState::Done(result) => anyhow::bail!("it has counted to the end: {result:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!("try later: {}, {percent} %: {text}", status.as_str());

    let aborted = jobs.slow_query_abort(endless, Some("nobody waits for it")).await?;
    println!("aborted: {} query is not run to its end", aborted.counts.aborted);
    let result = jobs.wait_for_query(endless).await?;
    println!("{}: {}", result.status.as_str(), result.output.as_deref().unwrap_or("no answer"));
    if let Err(refusal) = jobs.slow_query_abort(endless, None).await {
        println!("aborted again: {refusal}");
    }

    let short = jobs.slow_query_submit(QueryRequest::new("bank", "count", count(1_000)?)).await?;
    let result = jobs.wait_for_query(short).await?;
    println!("the next one in its slot: {}: {}", result.status.as_str(), result.output.as_deref().unwrap_or("no answer"));
    Ok(())
}
