-- A chained batch that was aborted because of the batch that it comes after (its predecessor) has a way back: it waits again when the predecessor runs again. The same holds
-- for each batch behind it. docs/batch-states.md has the states and the changes between them.
-- Of a chained batch: NULL, not all of its rows are made; made, all of them are; lapsed, it was aborted because of its predecessor.
ALTER TABLE batches ADD COLUMN chain_end TEXT CONSTRAINT chain_end_is_known CHECK (chain_end IN ('made', 'lapsed'));
CREATE INDEX batches_lapsed ON batches (after_batch) WHERE chain_end = 'lapsed';

-- Batches from before this migration. A batch that was released has all of its rows; an abort of a chain names the predecessor in its reason.
UPDATE batches SET chain_end = 'made'
WHERE after_batch IS NOT NULL AND (status NOT IN ('wait', 'aborted') OR started_at IS NOT NULL OR round > 1 OR success + failed > 0
    OR EXISTS (SELECT 1 FROM batch_events e WHERE e.batch_key = batches.batch_key AND e.kind = 'released'));
UPDATE batches SET chain_end = 'lapsed'
WHERE after_batch IS NOT NULL AND chain_end IS NULL AND status = 'aborted' AND abort_reason LIKE '%batch ' || after_batch || '%' AND abort_reason LIKE '% to come after%';
