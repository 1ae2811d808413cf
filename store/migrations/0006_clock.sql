-- Stretches of time in which the wall clock and the monotonic clock of one start of this machine (boot) kept their distance.
-- Rows that came while the time was not to be trusted have the number of theirs in flags >> 8, see redate.go.
CREATE TABLE clock_line (
	number INTEGER PRIMARY KEY CHECK (number > 0),
	boot   TEXT    NOT NULL,
	start  INTEGER NOT NULL, -- when the machine started, as the wall clock of this stretch has it
	sure   INTEGER NOT NULL CHECK (sure IN (0, 1))
) STRICT;

-- When a device was last heard of by such a clock, after last_seen; 0: not since.
ALTER TABLE counter ADD COLUMN unsure_seen INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counter ADD COLUMN unsure_line INTEGER NOT NULL DEFAULT 0;

CREATE INDEX reading_unsure ON reading (flags) WHERE flags > 255;
CREATE INDEX quarantine_unsure ON quarantine (flags) WHERE flags > 255;
CREATE INDEX original_unsure ON original (flags) WHERE flags > 255;
