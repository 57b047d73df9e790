-- A stop's own time for a clean shutdown, in milliseconds; -1: the spec's.
ALTER TABLE workspaces ADD COLUMN stop_timeout BIGINT NOT NULL DEFAULT -1;
