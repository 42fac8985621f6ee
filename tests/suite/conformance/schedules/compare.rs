//! The store against the model.

use anyhow::{Result, ensure};
use rowmill::model::{BatchStatus, BatchStep};
use rowmill::store::ResultCursor;

use super::Schedule;
use super::finishers::output_files;
use super::model::NamedPieces;

impl Schedule {
    pub(super) async fn compare(&mut self, at: usize) -> Result<()> {
        let wanted = &self.model.batches[at];
        let batch = self.store.read_batch(wanted.id).await?;
        let (found, wanted_) = ((batch.status, batch.step, batch.counts), (wanted.status, wanted.step, wanted.counts()));
        ensure!(found == wanted_, "{found:?} instead of {wanted_:?}");
        let found = (batch.fuel, batch.abort_reason.as_ref(), batch.mark_error.as_ref());
        let wanted_ = (wanted.fuel, wanted.abort_reason.as_ref(), wanted.mark_error.as_ref());
        ensure!(found == wanted_, "{found:?} instead of {wanted_:?}");
        let found = (batch.mark_calls, batch.mark_due_at);
        let wanted_ = (wanted.mark_calls, wanted.mark_due);
        ensure!(found == wanted_, "{found:?} instead of {wanted_:?}");
        let found = (batch.submitted_at, batch.started_at, batch.finished_at);
        let wanted_ = (wanted.submitted_at, wanted.started_at, wanted.finished_at);
        ensure!(found == wanted_, "{found:?} instead of {wanted_:?}");

        let (mut found, mut after) = (Vec::new(), None);
        let page_rows = if self.random.chance(30) { 1 + self.random.below(5) } else { 100 };
        loop {
            let page = self.store.read_results(wanted.id, after, page_rows).await?;
            let Some(last) = page.last() else { break };
            after = Some(ResultCursor { line: last.line, row_no: last.row_no });
            found.extend(page);
        }
        ensure!(found == wanted.results(), "the results are {found:#?}\ninstead of {:#?}", wanted.results());
        let (mut outcomes, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.read_past_outcomes(wanted.id, after, page_rows).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.cursor());
            outcomes.extend(page);
        }
        ensure!(outcomes == wanted.past_outcomes, "the past outcomes are {outcomes:#?}\ninstead of {:#?}", wanted.past_outcomes);
        let rounds = self.store.list_rounds(wanted.id, 0, 1_000).await?;
        ensure!((batch.round, &rounds) == (wanted.round, &wanted.past_rounds), "the rounds are {rounds:#?}\ninstead of {:#?}", wanted.past_rounds);
        for (key, times) in self.taken.range((wanted.id, 0)..=(wanted.id, u32::MAX)) {
            ensure!(*times == 1, "the outcome of row {} was taken {times} times", key.1);
        }
        Ok(())
    }

    pub(super) async fn compare_all(&mut self) -> Result<()> {
        for at in 0..self.model.batches.len() {
            self.compare(at).await?;
        }
        Ok(())
    }

    pub(super) async fn compare_due(&self) -> Result<()> {
        let (found, wanted) = (self.store.next_due(None).await?, self.model.next_due().map(|due| due.since(self.now())));
        ensure!(found == wanted, "due in {found:?} instead of {wanted:?}");
        Ok(())
    }

    /// A batch's round was over, joined and marked once.
    pub(super) fn ensure_ended_once(&self, at: usize) -> Result<()> {
        let batch = &self.model.batches[at];
        let aborted = batch.status == BatchStatus::Aborted;
        let ends = self.ends.get(&batch.id).copied().unwrap_or_default();
        let at_once = !aborted && batch.is_query() && batch.pieces().is_empty();
        ensure!(ends == [u32::from(!aborted), u32::from(!at_once), 1], "over, joined and marked so often: {ends:?}, {batch:?}");
        Ok(())
    }

    /// Every row has exactly one outcome or was aborted, and every batch was finished exactly once.
    pub(super) async fn compare_ends(&self) -> Result<()> {
        for (at, batch) in self.model.batches.iter().enumerate() {
            self.ensure_ended_once(at)?;
            let found = self.store.read_batch(batch.id).await?;
            ensure!(found.step == BatchStep::Done && found.status.is_final(), "{found:?}");
            let counts = found.counts;
            ensure!(counts.success + counts.failed + counts.aborted == counts.rows, "{counts:?}");
            let outcomes = self.taken.range((batch.id, 0)..=(batch.id, u32::MAX)).count();
            ensure!(outcomes as u64 == counts.success + counts.failed, "{outcomes} outcomes, {counts:?}");

            let names = self.store.list_file_names(batch.id).await?;
            let pieces = self.store.read_pieces(batch.id, None, 1_000).await?;
            let named = |pieces: Vec<(usize, String)>| pieces.into_iter().map(|(file, text)| (names[file].clone(), text)).collect();
            let pieces: Vec<(u32, NamedPieces)> = pieces.into_iter().map(|row| (row.at.row_no, named(row.pieces))).collect();
            ensure!(pieces == batch.pieces(), "the pieces are {pieces:?}\ninstead of {:?}", batch.pieces());
            ensure!(found.files == output_files(batch), "{:?}", found.files);
        }
        Ok(())
    }
}
