-- What stands where, and which device serves it (package garden). Ids are UUIDs. Rows of no two tables have the same shape, so that
-- those of a damaged file can be told apart (carry.go).
CREATE TABLE zone (
	id      TEXT    NOT NULL PRIMARY KEY,
	kind    TEXT    NOT NULL CHECK (kind IN ('room', 'bench', 'bed', 'tank', 'other')),
	name    TEXT    NOT NULL CHECK (name <> ''),
	created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A plant that was deleted stays, so that readings stay its.
CREATE TABLE plant (
	id      TEXT    NOT NULL PRIMARY KEY,
	name    TEXT    NOT NULL CHECK (name <> ''),
	species TEXT,
	zone    TEXT REFERENCES zone (id) ON DELETE SET NULL,
	x       REAL,
	y       REAL,
	created INTEGER NOT NULL,
	deleted INTEGER,
	CHECK ((x IS NULL) = (y IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX plant_of_zone ON plant (zone) WHERE zone IS NOT NULL;

CREATE TABLE threshold (
	plant  TEXT NOT NULL REFERENCES plant (id) ON DELETE CASCADE,
	metric TEXT NOT NULL CHECK (metric <> ''),
	min    REAL,
	max    REAL,
	PRIMARY KEY (plant, metric),
	CHECK (min IS NULL OR max IS NULL OR min <= max)
) STRICT, WITHOUT ROWID;

-- metric '' is every one that no other assignment of that device and time names. since is included, until is not; NULL: still.
CREATE TABLE assignment (
	id     TEXT    NOT NULL PRIMARY KEY,
	device INTEGER NOT NULL REFERENCES device (id),
	plant  TEXT    NOT NULL REFERENCES plant (id) ON DELETE CASCADE,
	metric TEXT    NOT NULL,
	since  INTEGER NOT NULL,
	until  INTEGER CHECK (until > since)
) STRICT, WITHOUT ROWID;
CREATE INDEX assignment_of_device ON assignment (device);
CREATE INDEX assignment_of_plant ON assignment (plant);

-- Notes and events, each of a plant or of a zone.
CREATE TABLE note (
	id      TEXT    NOT NULL PRIMARY KEY,
	time    INTEGER NOT NULL,
	kind    TEXT    NOT NULL CHECK (kind IN ('note', 'watered', 'fed', 'repotted', 'other')),
	text    TEXT    NOT NULL,
	author  TEXT    NOT NULL,
	created INTEGER NOT NULL,
	plant   TEXT REFERENCES plant (id) ON DELETE CASCADE,
	zone    TEXT REFERENCES zone (id) ON DELETE CASCADE,
	CHECK ((plant IS NULL) <> (zone IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX note_of_plant ON note (plant, time) WHERE plant IS NOT NULL;
CREATE INDEX note_of_zone ON note (zone, time) WHERE zone IS NOT NULL;
CREATE INDEX note_in_time ON note (time);

-- What a device told when it registered. sensors is a JSON array; NULL: it did not tell.
CREATE TABLE registration (
	device   INTEGER PRIMARY KEY REFERENCES device (id),
	mac      TEXT    NOT NULL UNIQUE,
	firmware TEXT,
	sensors  TEXT,
	created  INTEGER NOT NULL,
	renewed  INTEGER NOT NULL
) STRICT;

-- What a person or a program may do on the web page and in its API (package people); '' is nothing.
ALTER TABLE account ADD COLUMN web_role TEXT NOT NULL DEFAULT '' CHECK (web_role IN ('', 'viewer', 'operator', 'admin'));

-- Bearer tokens. hash is of salt and secret; used 0: never.
CREATE TABLE api_token (
	id      TEXT    NOT NULL PRIMARY KEY,
	name    TEXT    NOT NULL UNIQUE,
	role    TEXT    NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
	created INTEGER NOT NULL,
	used    INTEGER NOT NULL,
	salt    BLOB    NOT NULL,
	hash    BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- Who is logged in. hash is that of the cookie.
CREATE TABLE web_session (
	hash    BLOB    NOT NULL PRIMARY KEY,
	account TEXT    NOT NULL REFERENCES account (name) ON DELETE CASCADE,
	created INTEGER NOT NULL,
	seen    INTEGER NOT NULL,
	expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX web_session_of_account ON web_session (account, seen);
CREATE INDEX web_session_in_time ON web_session (expires);

-- For other programs (docs/sql.md), as the views of 0010.
CREATE VIEW zones AS SELECT id, name, kind, created FROM zone;

CREATE VIEW plants AS SELECT id, name, species, zone, x, y, created, deleted FROM plant;

CREATE VIEW assignments AS
SELECT plant, device.name AS device, nullif(metric, '') AS metric, since, until
FROM assignment JOIN device ON device.id = assignment.device;
