-- What became of damaged files: one row for each time that the database was made anew (rebuild.go).
CREATE TABLE salvage (
	id       INTEGER PRIMARY KEY,
	begun    INTEGER NOT NULL,
	cause    TEXT    NOT NULL,
	source   TEXT    NOT NULL, -- the old file, beside this one
	lost     TEXT    NOT NULL, -- what is missing of everything but readings; empty: nothing
	page     INTEGER NOT NULL, -- from where readings are still to be carried over
	pages    INTEGER NOT NULL,
	finished INTEGER NOT NULL  -- zero: not yet
) STRICT;

-- How many rows of readings each device had there, and how many of them were found.
CREATE TABLE salvage_device (
	salvage  INTEGER NOT NULL,
	device   INTEGER NOT NULL,
	expected INTEGER NOT NULL,
	found    INTEGER NOT NULL,
	PRIMARY KEY (salvage, device)
) STRICT, WITHOUT ROWID;

-- Side files whose messages are in the quarantine already (aside.go).
CREATE TABLE taken (
	file TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Whose entries make room, and which of them.
CREATE INDEX quarantine_of_device ON quarantine (device, id, size);
