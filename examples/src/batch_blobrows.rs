//! Rows write pieces of output files, which are joined in the order of the lines: here the odd lines are good and write to one file, the even ones are bad and
//! write to another.

use rowmill::jobs::BatchRequest;

use crate::stage::{Place, Stage, deposit, guest, in_short, row};

const ROWS: u32 = 10;

pub async fn run(place: &Place) -> anyhow::Result<()> {
    Stage::open(place, "batch-blobrows").await?.run(write_files).await
}

async fn write_files(stage: &Stage) -> anyhow::Result<()> {
    let jobs = &stage.jobs;
    jobs.register_batch_processor("bank", "validate", guest("bank-transactions")?).await?;
    // An amount of nothing is refused.
    let cents = |line: u32| if line.is_multiple_of(2) { 0 } else { 100 * line };
    let rows = (1..=ROWS).map(|line| row(line, &deposit(line, cents(line)))).collect::<Result<_, _>>()?;
    let id = jobs.batch_submit(BatchRequest::new("bank", "validate").with_rows(rows)).await?;
    let batch = jobs.wait(id).await?;
    println!("{}", in_short(&batch));
    for file in &batch.files {
        println!("{}, {} bytes, as {}:", file.name, file.size_bytes, file.object);
        print!("{}", stage.read_file(&batch, &file.name).await?);
    }
    Ok(())
}
