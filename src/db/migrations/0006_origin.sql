-- What a clone begins from: JSON (model/assignment.h); NULL: it is no clone.
ALTER TABLE workspaces ADD COLUMN origin TEXT;
