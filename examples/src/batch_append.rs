//! Rows are appended to a batch while it is held; then it is released.

use rowmill::jobs::BatchRequest;

use crate::stage::{Place, Stage, deposit, guest, in_short, row};

pub async fn run(place: &Place) -> anyhow::Result<()> {
    Stage::open(place, "batch-append").await?.run(append).await
}

async fn append(stage: &Stage) -> anyhow::Result<()> {
    let jobs = &stage.jobs;
    jobs.register_batch_processor("bank", "validate", guest("bank-transactions")?).await?;
    let rows = |lines: std::ops::RangeInclusive<u32>| lines.map(|line| row(line, &deposit(line, 100 * line))).collect::<Result<Vec<_>, _>>();

    let id = jobs.batch_submit(BatchRequest::new("bank", "validate").with_rows(rows(1..=3)?).held()).await?;
    println!("submitted: {}, with 3 rows", jobs.batch_status(id).await?.status.as_str());
    for lines in [4..=6, 7..=9] {
        println!("appended: {} rows", jobs.batch_append(id, rows(lines)?, false).await?);
    }
    println!("before its release: {}", jobs.batch_status(id).await?.status.as_str());
    // The last append may release it; so does `jobs.release(id)` alone.
    println!("appended and released: {} rows", jobs.batch_append(id, rows(10..=10)?, true).await?);
    println!("{}", in_short(&jobs.wait(id).await?));
    if let Err(refusal) = jobs.batch_append(id, rows(11..=11)?, false).await {
        println!("appended too late: {refusal}");
    }
    Ok(())
}
