//! A batch that runs is aborted: what has an outcome keeps it, the rest is aborted, and the rows that run at this moment are stopped.

use std::time::{Duration, Instant};

use rowmill::jobs::BatchRequest;
use serde_json::json;

use crate::stage::{Place, Stage, guest, in_short, row};

const ROWS: u32 = 1_000;

pub async fn run(place: &Place) -> anyhow::Result<()> {
    Stage::open(place, "batch-abort").await?.run(abort).await
}

async fn abort(stage: &Stage) -> anyhow::Result<()> {
    let jobs = &stage.jobs;
    jobs.register_batch_processor("bank", "nap", guest("sleeper")?).await?;
    // Each of them takes a fifth of a second; all of them would take minutes.
    let rows = (1..=ROWS).map(|line| row(line, &json!({"ms": 200}))).collect::<Result<_, _>>()?;
    let id = jobs.batch_submit(BatchRequest::new("bank", "nap").with_rows(rows)).await?;

    let before = loop {
        let status = jobs.batch_status(id).await?;
        if status.counts.success > 0 {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!("{}: {} of {ROWS} rows have succeeded", before.status.as_str(), before.counts.success);

    let began = Instant::now();
    let aborted = jobs.batch_abort(id, Some("the file was the wrong one")).await?;
    println!("{}: {} rows are not run", aborted.status.as_str(), aborted.counts.aborted);
    let batch = jobs.wait(id).await?;
    println!("{} ({:?} after the abort)", in_short(&batch), began.elapsed());
    println!("because: {}", batch.abort_reason.as_deref().unwrap_or("nobody said"));

    // To abort what has ended changes nothing.
    let again = jobs.batch_abort(id, None).await?;
    println!("aborted again: {}, {}", again.status.as_str(), if again.changed { "changed" } else { "nothing changed" });
    Ok(())
}
