-- The kernel that a machine boots, as it was chosen for its last start: JSON (model/assignment.h); NULL: none.
ALTER TABLE workspaces ADD COLUMN kernel TEXT;
