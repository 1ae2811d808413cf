-- Times are UTC in milliseconds. A migration that was released is never edited: the next one gets the next number.

CREATE TABLE device (
	id      INTEGER PRIMARY KEY,
	name    TEXT    NOT NULL UNIQUE,
	created INTEGER NOT NULL
) STRICT;

-- What belongs to no known device is counted for device 0, whose name is empty.
INSERT INTO device (id, name, created) VALUES (0, '', 0);

-- What changes with every message, one narrow row per device: outcomes of messages, and facts about its readings.
CREATE TABLE counter (
	device       INTEGER PRIMARY KEY REFERENCES device (id),
	stored       INTEGER NOT NULL DEFAULT 0 CHECK (stored >= 0),
	duplicate    INTEGER NOT NULL DEFAULT 0 CHECK (duplicate >= 0),
	quarantined  INTEGER NOT NULL DEFAULT 0 CHECK (quarantined >= 0),
	refused      INTEGER NOT NULL DEFAULT 0 CHECK (refused >= 0),
	rows         INTEGER NOT NULL DEFAULT 0 CHECK (rows >= 0), -- of table reading
	last_seen    INTEGER NOT NULL DEFAULT 0,
	last_reading INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO counter (device) VALUES (0);

-- Why messages were refused, all devices together.
CREATE TABLE refusal (
	reason TEXT    NOT NULL PRIMARY KEY,
	count  INTEGER NOT NULL CHECK (count >= 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE metric (
	id     INTEGER PRIMARY KEY,
	name   TEXT    NOT NULL UNIQUE,
	device INTEGER NOT NULL REFERENCES device (id) -- which device brought the name
) STRICT;

-- One row per device and time; body holds the metrics and their values (body.go).
CREATE TABLE reading (
	device   INTEGER NOT NULL,
	time     INTEGER NOT NULL,
	received INTEGER NOT NULL,
	flags    INTEGER NOT NULL,
	body     BLOB    NOT NULL,
	PRIMARY KEY (device, time)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: the id of an entry that is gone never names another one.
CREATE TABLE quarantine (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	time    INTEGER NOT NULL,
	device  INTEGER NOT NULL REFERENCES device (id),
	flags   INTEGER NOT NULL,
	size    INTEGER NOT NULL, -- what the entry counts towards the bound on all of them
	topic   TEXT    NOT NULL,
	reason  TEXT    NOT NULL,
	payload BLOB    NOT NULL
) STRICT;

-- What is left of entries that had to make room.
CREATE TABLE quarantine_summary (
	device   INTEGER NOT NULL REFERENCES device (id),
	reason   TEXT    NOT NULL,
	count    INTEGER NOT NULL,
	first    INTEGER NOT NULL,
	last     INTEGER NOT NULL,
	PRIMARY KEY (device, reason)
) STRICT, WITHOUT ROWID;

CREATE TABLE account (
	name      TEXT    NOT NULL PRIMARY KEY,
	role      TEXT    NOT NULL CHECK (role IN ('device', 'backend', 'user')),
	algorithm TEXT    NOT NULL,
	salt      BLOB    NOT NULL,
	hash      BLOB    NOT NULL,
	created   INTEGER NOT NULL,
	disabled  INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1))
) STRICT, WITHOUT ROWID;
