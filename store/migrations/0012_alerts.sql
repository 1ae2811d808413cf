-- Alerts and what is to be told of them (packages alert and outbox). body is JSON; state and what was learned are settings. Rows of no
-- two tables have the same shape (0011).

-- closed NULL: it lasts.
CREATE TABLE alert (
	id     INTEGER PRIMARY KEY,
	opened INTEGER NOT NULL,
	closed INTEGER,
	body   TEXT    NOT NULL
) STRICT;
CREATE INDEX alert_open ON alert (id) WHERE closed IS NULL;

-- What a channel has not taken yet. It goes in order of id. due is when it is tried next.
CREATE TABLE outbox (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	channel  TEXT    NOT NULL,
	message  TEXT    NOT NULL,
	body     TEXT    NOT NULL,
	attempts INTEGER NOT NULL,
	due      INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_of_channel ON outbox (channel, id);

-- What a button of a message may do, once. hash is that of the key in its address.
CREATE TABLE alert_key (
	hash    BLOB    NOT NULL PRIMARY KEY,
	alert   INTEGER NOT NULL,
	action  TEXT    NOT NULL,
	expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
