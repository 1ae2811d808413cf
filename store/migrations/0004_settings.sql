-- What the program remembers about the box, for instance which certificate authority it made.
CREATE TABLE setting (
	name  TEXT NOT NULL PRIMARY KEY,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- When a device got the secret that it has, and with it the CA certificates of that day. 0: when it was created.
ALTER TABLE account ADD COLUMN rotated INTEGER NOT NULL DEFAULT 0;
