-- Of a device whose readings are deleted by a rule of its own: as kept in sql_state, and before when its hours are deleted too. Both in
-- milliseconds.
CREATE TABLE sql_kept (
	device INTEGER NOT NULL PRIMARY KEY,
	kept   INTEGER NOT NULL,
	gone   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
