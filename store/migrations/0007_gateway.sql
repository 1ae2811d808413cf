-- Devices that speak through a gateway: the source and the name that they have there, and the account that speaks for them,
-- empty where the broker does not tell.
CREATE TABLE gateway (
	device  INTEGER NOT NULL PRIMARY KEY REFERENCES device (id),
	source  TEXT    NOT NULL CHECK (length(source) > 0),
	raw     TEXT    NOT NULL,
	account TEXT    NOT NULL
) STRICT;

-- When the device said that it goes, unless it was heard of since; 0 for most.
ALTER TABLE counter ADD COLUMN left_at INTEGER NOT NULL DEFAULT 0 CHECK (left_at >= 0);
