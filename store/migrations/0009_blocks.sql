-- What one commit added: its readings, and how counters changed (package block). Written with everything else of the commit;
-- gone when its readings are in blocks and its counters in their table.
CREATE TABLE journal (
	seq  INTEGER PRIMARY KEY,
	body BLOB    NOT NULL
) STRICT;

-- Readings of one device in order of time, compressed, with a summary for each metric (package block). key is month << 40 |
-- device << 16 | number, the month counted from January 1970 (UTC): a block never spans two.
CREATE TABLE block (
	key     INTEGER PRIMARY KEY,
	n       INTEGER NOT NULL, -- readings
	t0      INTEGER NOT NULL, -- of the first
	t1      INTEGER NOT NULL, -- of the last
	summary BLOB    NOT NULL,
	body    BLOB    NOT NULL
) STRICT;

-- Of each device: up to which record of the journal its readings are in blocks, the time of the newest that is in one, and the
-- latest of each metric among them.
CREATE TABLE newest (
	device  INTEGER PRIMARY KEY,
	flushed INTEGER NOT NULL,
	last    INTEGER NOT NULL,
	body    BLOB    NOT NULL
) STRICT;

-- Table reading stays for what came while the clock was not to be trusted, until it is dated anew (redate.go), and for what an
-- earlier version wrote, until it is moved into blocks (compact.go). Column counter.stamp is not used any more.

-- How a metric of a device is put right when it is read; what is valid from the latest time counts, and of those from one time
-- the highest version.
CREATE TABLE calibration (
	device     INTEGER NOT NULL,
	metric     INTEGER NOT NULL,
	version    INTEGER NOT NULL CHECK (version > 0),
	valid_from INTEGER NOT NULL,
	kind       TEXT    NOT NULL,
	body       TEXT    NOT NULL,
	created    INTEGER NOT NULL,
	note       TEXT    NOT NULL,
	PRIMARY KEY (device, metric, version)
) STRICT, WITHOUT ROWID;

-- Readings that do not count, from first to last, which are included. metric NULL: all of the device; undone 0: in force.
CREATE TABLE void (
	id      INTEGER PRIMARY KEY,
	device  INTEGER NOT NULL,
	metric  INTEGER,
	first   INTEGER NOT NULL,
	last    INTEGER NOT NULL,
	reason  TEXT    NOT NULL,
	created INTEGER NOT NULL,
	undone  INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Metrics that are computed when they are read.
CREATE TABLE derived (
	name TEXT NOT NULL PRIMARY KEY,
	body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Accounts without the column disabled and the role backend, which nothing used. The columns have another order than before, so
-- that rows of both can be told apart (carry.go). The rules go along: they would be deleted with the accounts.
CREATE TABLE account_new (
	name      TEXT    NOT NULL PRIMARY KEY,
	role      TEXT    NOT NULL CHECK (role IN ('device', 'user')),
	admin     INTEGER NOT NULL DEFAULT 0 CHECK (admin IN (0, 1)),
	algorithm TEXT    NOT NULL,
	salt      BLOB    NOT NULL,
	hash      BLOB    NOT NULL, -- of people and other programs: text that says how it was made; salt is empty then
	created   INTEGER NOT NULL,
	rotated   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
INSERT INTO account_new (name, role, admin, algorithm, salt, hash, created, rotated)
	SELECT name, role, admin, algorithm, salt, hash, created, rotated FROM account WHERE disabled = 0 AND role <> 'backend';
CREATE TABLE rule_new (
	account TEXT NOT NULL REFERENCES account_new (name) ON DELETE CASCADE,
	action  TEXT NOT NULL CHECK (action IN ('publish', 'subscribe')),
	filter  TEXT NOT NULL,
	PRIMARY KEY (account, action, filter)
) STRICT, WITHOUT ROWID;
INSERT INTO rule_new SELECT account, action, filter FROM rule WHERE account IN (SELECT name FROM account_new);
DROP TABLE rule;
DROP TABLE account;
ALTER TABLE account_new RENAME TO account;
ALTER TABLE rule_new RENAME TO rule;
