//! Batches at every stage of their life, for what must or must not work at each.

use rowmill::model::{BatchId, BatchStatus, BatchStep};

use super::build::{SECOND, failure, retry, success};
use super::kit::Kit;

/// A batch of three rows, and where it is.
#[derive(Debug)]
pub struct Stage {
    pub name: &'static str,
    pub id: BatchId,
    pub status: BatchStatus,
    pub step: BatchStep,
}

/// One batch at each stage. Nothing in the store can be claimed before a lease ends but the rows of the queued one.
pub async fn every_stage(kit: &Kit) -> Vec<Stage> {
    let mut stages = Vec::new();

    stages.push(Stage { name: "success", id: kit.submit(3).await, status: BatchStatus::Success, step: BatchStep::Done });
    kit.run_rows().await;
    kit.finish_all().await;

    stages.push(Stage { name: "failed", id: kit.submit(3).await, status: BatchStatus::Failed, step: BatchStep::Done });
    kit.run_rows_with(failure).await;
    kit.finish_all().await;

    stages.push(Stage { name: "aborted and done", id: kit.submit(3).await, status: BatchStatus::Aborted, step: BatchStep::Done });
    kit.abort(stages[2].id).await;
    kit.finish_all().await;

    stages.push(Stage { name: "to be marked", id: kit.submit(3).await, status: BatchStatus::Success, step: BatchStep::Mark });
    kit.run_rows().await;
    kit.store.record_files(&kit.claim_finish().await, &[]).await.unwrap();

    stages.push(Stage { name: "to be joined", id: kit.submit(3).await, status: BatchStatus::Inprog, step: BatchStep::Join });
    kit.run_rows().await;

    stages.push(Stage { name: "aborted", id: kit.submit(3).await, status: BatchStatus::Aborted, step: BatchStep::Join });
    kit.abort(stages[5].id).await;

    stages.push(Stage { name: "leased", id: kit.submit(3).await, status: BatchStatus::Inprog, step: BatchStep::Rows });
    kit.claim_rows(3).await;

    stages.push(Stage { name: "given back", id: kit.submit(3).await, status: BatchStatus::Inprog, step: BatchStep::Rows });
    let given_back = kit.claim_rows(3).await;

    stages.push(Stage { name: "to be retried", id: kit.submit(3).await, status: BatchStatus::Inprog, step: BatchStep::Rows });
    kit.run_rows_with(|row| if row.row_no == 2 { retry(row, SECOND * 3_600) } else { success(row) }).await;

    kit.store.give_back_lease(given_back.key).await.unwrap();
    stages.push(Stage { name: "queued", id: kit.submit(3).await, status: BatchStatus::Queued, step: BatchStep::Rows });
    stages.push(Stage { name: "held", id: kit.hold(3).await, status: BatchStatus::Wait, step: BatchStep::Rows });

    for Stage { name, id, status, step } in &stages {
        let batch = kit.batch(*id).await;
        assert_eq!((batch.status, batch.step), (*status, *step), "{name}");
    }
    stages
}
