-- Networks of the site, the interfaces on them, and groups. An attachment that was given up stays as long as its addresses rest, so
-- that the UNIQUE columns below are the last word on who has an address, whatever the memory of a service believes.
CREATE TABLE site (
	key TEXT PRIMARY KEY,            -- id, prefix: random; network, attachment: the last number that was given
	value TEXT NOT NULL
);
CREATE TABLE networks (
	number BIGINT PRIMARY KEY,       -- never given again
	name TEXT NOT NULL UNIQUE,
	network TEXT NOT NULL,           -- model/network.h
	created BIGINT NOT NULL
);
CREATE TABLE attachments (
	number BIGINT PRIMARY KEY,       -- never given again
	workspace TEXT NOT NULL,         -- its id; the row may outlive it (released)
	network BIGINT NOT NULL REFERENCES networks (number),
	owner_uid BIGINT NOT NULL,       -- owner and name at the release: who may have it back at once
	name TEXT NOT NULL,
	device TEXT NOT NULL,
	port TEXT NOT NULL UNIQUE,
	mac TEXT NOT NULL UNIQUE,
	ipv4 TEXT,                       -- ADDRESS/LENGTH
	ipv6 TEXT,
	released BIGINT NOT NULL,        -- when it was given up; 0: in use
	UNIQUE (network, ipv4),
	UNIQUE (network, ipv6)
);
CREATE INDEX attachments_workspace ON attachments (workspace);
CREATE INDEX attachments_released ON attachments (released);
CREATE TABLE user_groups (
	name TEXT PRIMARY KEY,
	owner_uid BIGINT NOT NULL,
	shared TEXT NOT NULL,            -- JSON list of user ids that may put workspaces in, too
	created BIGINT NOT NULL
);
