-- What devices in the field bring along. Readings that a device had to give up, by its own account.
ALTER TABLE counter ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0 CHECK (dropped >= 0);

-- Which messages of one start of a device have come, for devices that number them (sequence.go). used orders the starts
-- of a device: the highest is the one heard last.
CREATE TABLE boot (
	device INTEGER NOT NULL REFERENCES device (id),
	boot   TEXT    NOT NULL CHECK (length(boot) BETWEEN 1 AND 32),
	used   INTEGER NOT NULL CHECK (used > 0),
	seen   BLOB    NOT NULL,
	PRIMARY KEY (device, boot)
) STRICT, WITHOUT ROWID;
