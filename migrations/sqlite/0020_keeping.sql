-- How long batches are kept, and how they are pruned.
ALTER TABLE policies ADD COLUMN keep TEXT; -- how long batches are kept once they are done, as far as it is said, as JSON

-- Parts are bits: 1 output files, 2 inputs and the files that they came from, 4 outcomes, 8 events; 16 is the batch itself.
ALTER TABLE batches ADD COLUMN parts INTEGER NOT NULL DEFAULT 15;   -- what is there
ALTER TABLE batches ADD COLUMN pruning INTEGER NOT NULL DEFAULT 0; -- what counts as pruned and is being removed
ALTER TABLE batches ADD COLUMN pruning_until INTEGER;              -- others leave what is being pruned alone until then
ALTER TABLE batches ADD COLUMN pruned_rows INTEGER NOT NULL DEFAULT 0; -- rows up to this one are pruned already, of what is being pruned
ALTER TABLE batches ADD COLUMN files_pruned_at INTEGER;
ALTER TABLE batches ADD COLUMN inputs_pruned_at INTEGER;
ALTER TABLE batches ADD COLUMN outcomes_pruned_at INTEGER;

-- The oldest batch of an operation that has a part, for each set of parts.
CREATE INDEX batches_done ON batches (app, op, parts, finished_at) WHERE step = 'done' AND pruning = 0;
CREATE INDEX batches_pruning ON batches (batch_key) WHERE pruning <> 0;
-- A kept file may be that of several batches.
CREATE INDEX batch_files_by_object ON batch_files (object) WHERE object IS NOT NULL;
