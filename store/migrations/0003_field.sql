-- What devices in the field bring along. dropped: readings that a device had to give up, by its own account; skipped: fields
-- of its messages that could not be read.
ALTER TABLE counter ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0 CHECK (dropped >= 0);
ALTER TABLE counter ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0 CHECK (skipped >= 0);

-- The time that the device gave and that was not used; NULL for most rows.
ALTER TABLE reading ADD COLUMN given TEXT CHECK (length(given) BETWEEN 1 AND 64);

-- Which messages of one start of a device have come, for devices that number them (sequence.go). used orders the starts
-- of a device: the highest is the one heard last.
CREATE TABLE boot (
	device INTEGER NOT NULL REFERENCES device (id),
	boot   TEXT    NOT NULL CHECK (length(boot) BETWEEN 1 AND 32),
	used   INTEGER NOT NULL CHECK (used > 0),
	seen   BLOB    NOT NULL,
	PRIMARY KEY (device, boot)
) STRICT, WITHOUT ROWID;

-- Fields that could not be read; text is what the last one said.
CREATE TABLE skipped (
	device INTEGER NOT NULL REFERENCES device (id),
	field  TEXT    NOT NULL CHECK (length(field) BETWEEN 1 AND 128),
	count  INTEGER NOT NULL CHECK (count > 0),
	first  INTEGER NOT NULL,
	last   INTEGER NOT NULL,
	text   TEXT    NOT NULL CHECK (length(text) <= 64),
	PRIMARY KEY (device, field)
) STRICT, WITHOUT ROWID;

-- The latest messages that were stored with a field missing, number by number of their device. A long payload is cut; size
-- is what it was.
CREATE TABLE original (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	device  INTEGER NOT NULL REFERENCES device (id),
	number  INTEGER NOT NULL CHECK (number > 0),
	time    INTEGER NOT NULL,
	flags   INTEGER NOT NULL,
	size    INTEGER NOT NULL CHECK (size >= length(payload)),
	topic   TEXT    NOT NULL,
	payload BLOB    NOT NULL,
	UNIQUE (device, number)
) STRICT;
