-- What other programs may read (docs/sql.md): the views devices, metrics, latest and hourly. They are for ever; the tables below them
-- are not. They are written beside the readings (tables.go), a few minutes late, and can be made anew from them: a damaged file's are
-- not carried over. A migration that renames a table of a view makes the view anew.

-- A metric of a device, with its latest value.
CREATE TABLE sql_series (
	id     INTEGER PRIMARY KEY,
	device INTEGER NOT NULL,
	metric INTEGER NOT NULL,
	time   INTEGER,
	value  REAL,
	UNIQUE (device, metric)
) STRICT;

CREATE TABLE sql_device (
	device       INTEGER NOT NULL PRIMARY KEY,
	last_seen    INTEGER NOT NULL,
	last_reading INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Hours of which there is a row, in seconds since 1970: to find those of one series without reading all.
CREATE TABLE sql_hour (
	hour INTEGER PRIMARY KEY
) STRICT;

-- Integers are thousandths, of avg hundred thousandths; what does not fit is a real.
CREATE TABLE sql_hourly (
	hour   INTEGER NOT NULL,
	series INTEGER NOT NULL,
	min    ANY     NOT NULL,
	avg    ANY     NOT NULL,
	max    ANY     NOT NULL,
	count  INTEGER NOT NULL,
	PRIMARY KEY (hour, series)
) STRICT, WITHOUT ROWID;

-- computed: what is before it has its hours, but for what sql_due has; kept: readings before it may be deleted, their hours stay.
-- Both in milliseconds.
CREATE TABLE sql_state (
	id       INTEGER PRIMARY KEY CHECK (id = 1),
	computed INTEGER NOT NULL,
	kept     INTEGER NOT NULL,
	hourly   TEXT    NOT NULL -- the form of sql_hourly
) STRICT;
INSERT INTO sql_state (id, computed, kept, hourly) VALUES (1, -1 << 63, -1 << 63, '1');

-- Late readings whose hours are still to be computed, by device, from a time on, which is included, to another, which is not.
CREATE TABLE sql_due (
	device INTEGER NOT NULL PRIMARY KEY,
	first  INTEGER NOT NULL,
	last   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW devices AS
SELECT device.name AS device, created,
	EXISTS (SELECT 1 FROM account WHERE account.name = device.name AND role = 'device') AS registered,
	nullif(last_seen, 0) AS last_seen, nullif(last_reading, 0) AS last_reading
FROM device LEFT JOIN sql_device ON sql_device.device = device.id
WHERE device.name <> '';

CREATE VIEW metrics AS
SELECT device.name AS device, metric.name AS metric
FROM sql_series JOIN device ON device.id = sql_series.device JOIN metric ON metric.id = sql_series.metric;

CREATE VIEW latest AS
SELECT device.name AS device, time, metric.name AS metric, value
FROM sql_series JOIN device ON device.id = sql_series.device JOIN metric ON metric.id = sql_series.metric
WHERE time IS NOT NULL;

CREATE VIEW hourly AS
SELECT sql_hour.hour AS time, device.name AS device, metric.name AS metric,
	iif(typeof(min) = 'integer', min / 1000.0, min) AS min,
	iif(typeof(avg) = 'integer', avg / 100000.0, avg) AS avg,
	iif(typeof(max) = 'integer', max / 1000.0, max) AS max,
	count
FROM sql_hour CROSS JOIN sql_hourly ON sql_hourly.hour = sql_hour.hour -- first the hours, then their rows by the whole key
	JOIN sql_series ON sql_series.id = sql_hourly.series
	JOIN device ON device.id = sql_series.device JOIN metric ON metric.id = sql_series.metric;
