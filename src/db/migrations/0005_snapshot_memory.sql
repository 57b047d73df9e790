-- 1: the snapshot has the memory of the running workspace.
ALTER TABLE snapshots ADD COLUMN memory INTEGER NOT NULL DEFAULT 0;
