-- The state of the broker, as it hands it over (package broker/journal). checksum is the CRC-32C of the blob of the row: what
-- does not fit is damaged, and costs this row only. No two tables have columns of the same types in the same order, so that
-- rows of a damaged file can be told apart (carry.go).

-- Sessions that outlive their connection. A session that ends with it has only rows in broker_queue, which are nobody's after
-- a restart.
CREATE TABLE broker_session (
	id       INTEGER PRIMARY KEY,
	client   TEXT    NOT NULL,
	account  TEXT    NOT NULL,
	checksum INTEGER NOT NULL,
	state    BLOB    NOT NULL
) STRICT;

CREATE TABLE broker_subscription (
	session  INTEGER NOT NULL,
	filter   TEXT    NOT NULL,
	options  BLOB    NOT NULL,
	checksum INTEGER NOT NULL,
	PRIMARY KEY (session, filter)
) STRICT, WITHOUT ROWID;

-- The messages of one batch, once for all queues that refer to them.
CREATE TABLE broker_pack (
	batch    INTEGER PRIMARY KEY,
	checksum INTEGER NOT NULL,
	messages BLOB    NOT NULL
) STRICT;

-- How many queues refer to a pack; a pack that is not here has one. Apart from it: a change would write the messages again.
CREATE TABLE broker_share (
	batch  INTEGER PRIMARY KEY,
	queues INTEGER NOT NULL
) STRICT;

-- What one batch added to the queue of one session: entries first to last. The key is in order of batch too.
CREATE TABLE broker_queue (
	session  INTEGER NOT NULL,
	last     INTEGER NOT NULL,
	first    INTEGER NOT NULL,
	batch    INTEGER NOT NULL,
	messages INTEGER NOT NULL,
	bytes    INTEGER NOT NULL,
	checksum INTEGER NOT NULL,
	entries  BLOB    NOT NULL,
	PRIMARY KEY (session, last)
) STRICT, WITHOUT ROWID;

CREATE TABLE broker_retained (
	id       INTEGER PRIMARY KEY,
	topic    TEXT    NOT NULL UNIQUE,
	message  BLOB    NOT NULL,
	account  TEXT    NOT NULL,
	checksum INTEGER NOT NULL
) STRICT;

-- Numbers from here on were never used. They are moved in large steps, so that few batches write this.
CREATE TABLE broker_next (
	id      INTEGER PRIMARY KEY CHECK (id = 1),
	session INTEGER NOT NULL,
	batch   INTEGER NOT NULL
) STRICT;

-- Which transaction wrote the row last: whether one is in the file can be told from it after a COMMIT that failed.
ALTER TABLE counter ADD COLUMN stamp INTEGER NOT NULL DEFAULT 0;
