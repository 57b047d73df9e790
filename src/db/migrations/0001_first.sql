-- Times are milliseconds of Unix time; 0: never. Columns that are only shown, never searched, are JSON.
CREATE TABLE workspaces (
	seq BIGINT PRIMARY KEY,          -- order of creation; cursors of lists
	id TEXT NOT NULL UNIQUE,
	name TEXT NOT NULL UNIQUE,
	owner_uid BIGINT NOT NULL,
	host TEXT NOT NULL,
	spec TEXT NOT NULL,              -- model/spec.h
	image TEXT NOT NULL,             -- model/image.h, as it was at creation
	wish TEXT NOT NULL,
	generation BIGINT NOT NULL,
	run BIGINT NOT NULL,
	held INTEGER NOT NULL,
	restore_count BIGINT NOT NULL,
	restore_from TEXT,
	created BIGINT NOT NULL,
	version BIGINT NOT NULL,         -- grows with each change that is shown: the ETag
	state TEXT NOT NULL,
	truth TEXT                       -- model/assignment.h, struct report; NULL: the host never reported
);
CREATE INDEX workspaces_owner ON workspaces (owner_uid);
CREATE TABLE snapshots (
	id TEXT PRIMARY KEY,
	workspace TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
	name TEXT NOT NULL,
	created BIGINT NOT NULL,
	UNIQUE (workspace, name)
);
CREATE TABLE operations (
	seq BIGINT PRIMARY KEY,
	id TEXT NOT NULL UNIQUE,
	kind TEXT NOT NULL,
	subject TEXT,                    -- id of the workspace or name of the image
	subject_kind TEXT NOT NULL,      -- workspace, image
	owner_uid BIGINT NOT NULL,
	state TEXT NOT NULL,
	error TEXT,                      -- JSON: kind, message, hint, step
	result TEXT,                     -- JSON
	created BIGINT NOT NULL,
	ended BIGINT NOT NULL
);
CREATE TABLE events (
	seq BIGINT PRIMARY KEY,
	at BIGINT NOT NULL,
	kind TEXT NOT NULL,
	subject TEXT,
	owner_uid BIGINT NOT NULL,
	body TEXT NOT NULL               -- JSON
);
CREATE TABLE images (
	name TEXT PRIMARY KEY,
	digest TEXT NOT NULL,
	owner_uid BIGINT NOT NULL,
	created BIGINT NOT NULL,
	image TEXT NOT NULL              -- model/image.h
);
CREATE INDEX images_digest ON images (digest);
CREATE TABLE idempotency (
	owner_uid BIGINT NOT NULL,
	key TEXT NOT NULL,
	request TEXT NOT NULL,           -- digest of method, path and body
	status INTEGER NOT NULL,
	subject TEXT NOT NULL,           -- id of what was made
	created BIGINT NOT NULL,
	PRIMARY KEY (owner_uid, key)
);
CREATE TABLE hosts (
	name TEXT PRIMARY KEY,
	facts TEXT NOT NULL,             -- JSON, as the host told last
	volumes TEXT NOT NULL,           -- JSON list of the kept volumes on it
	seen BIGINT NOT NULL
);
