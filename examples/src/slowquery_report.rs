//! A slow query is submitted, polled until it has ended, and its answer and its file are read: the statement of a bank account.

use std::time::Duration;

use anyhow::Context;
use rowmill::jobs::{QueryRequest, QueryState};
use rowmill::model::JsonText;
use serde_json::json;

use crate::stage::{Place, Stage, guest};

pub async fn run(place: &Place) -> anyhow::Result<()> {
    Stage::open(place, "slowquery-report").await?.run(report).await
}

async fn report(stage: &Stage) -> anyhow::Result<()> {
    let jobs = &stage.jobs;
    jobs.register_slow_query_processor("bank", "statement", guest("account-statement")?).await?;
    let transactions = (1..=10_000).map(|number| {
        json!({"date": format!("2026-01-{:02}", 1 + number % 31), "amount_cents": if number % 3 == 0 { -2 * number } else { number }, "memo": number.to_string()})
    });
    let question = json!({
        "account": "DE0123456789", "from": "2026-01-01", "to": "2026-01-31", "opening_cents": 1_000_000, "transactions": transactions.collect::<Vec<_>>(),
    });
    let id = jobs.slow_query_submit(QueryRequest::new("bank", "statement", JsonText::check(question.to_string())?)).await?;

    let result = loop {
        match jobs.slow_query_done(id).await? {
            QueryState::Done(result) => break result,
            QueryState::TryLater(progress) => {
                let said = progress.said.map_or_else(String::new, |(percent, text)| format!(", {percent} %: {text}"));
                println!("try later: {}{said}", progress.status.as_str());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!("{}: {}", result.status.as_str(), result.output.as_deref().unwrap_or("no answer"));
    for message in &result.messages {
        println!("{}", message.text());
    }
    let batch = jobs.batch_done(id).await?.context("it has ended")?;
    let statement = stage.read_file(&batch, "statement.txt").await?;
    println!("statement.txt, {} lines, which ends:", statement.lines().count());
    println!("{}", statement.trim_end().lines().next_back().unwrap_or_default());
    Ok(())
}
