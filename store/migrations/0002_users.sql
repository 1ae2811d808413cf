-- People and other programs: hash holds text that says how it was made (password.go), salt is empty, algorithm is 'password'.
ALTER TABLE account ADD COLUMN admin INTEGER NOT NULL DEFAULT 0 CHECK (admin IN (0, 1));

-- What they may do. Devices have no rules here: theirs are all the same.
CREATE TABLE rule (
	account TEXT NOT NULL REFERENCES account (name) ON DELETE CASCADE,
	action  TEXT NOT NULL CHECK (action IN ('publish', 'subscribe')),
	filter  TEXT NOT NULL,
	PRIMARY KEY (account, action, filter)
) STRICT, WITHOUT ROWID;
