package histories

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/foreign"
)

// openScript makes a database with that script.
func openScript(t *testing.T, script string) *foreign.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.Exec("BEGIN;" + strings.TrimSuffix(script, ";") + "; COMMIT")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	file, err := foreign.Open(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, file.Close()) })
	return file
}

func readRows(t *testing.T, file *foreign.File, o Options) *found {
	t.Helper()
	tables, err := file.Tables(t.Context())
	require.NoError(t, err)
	r, err := NewRows(t.Context(), DatabaseFormat(tables), file, Place{}, o)
	require.NoError(t, err)
	return readAll(t, r)
}

// The tables of the recorder since 2023, as far as they matter here (schema 41 and later).
const recorderTables = `
CREATE TABLE states_meta (metadata_id INTEGER PRIMARY KEY, entity_id VARCHAR(255));
CREATE TABLE state_attributes (attributes_id INTEGER PRIMARY KEY, hash BIGINT, shared_attrs TEXT);
CREATE TABLE states (state_id INTEGER PRIMARY KEY, entity_id CHAR(0), state VARCHAR(255), attributes CHAR(0), event_id SMALLINT,
	last_changed CHAR(0), last_changed_ts FLOAT, last_updated CHAR(0), last_updated_ts FLOAT, old_state_id INTEGER, attributes_id INTEGER, metadata_id INTEGER);
CREATE INDEX ix_states_metadata_id_last_updated_ts ON states (metadata_id, last_updated_ts);
CREATE TABLE statistics_meta (id INTEGER PRIMARY KEY, statistic_id VARCHAR(255), source VARCHAR(32), unit_of_measurement VARCHAR(255), has_mean BOOLEAN, has_sum BOOLEAN, name VARCHAR(255));
CREATE TABLE statistics (id INTEGER PRIMARY KEY, created CHAR(0), created_ts FLOAT, metadata_id INTEGER, start CHAR(0), start_ts FLOAT, mean FLOAT, min FLOAT, max FLOAT,
	last_reset CHAR(0), last_reset_ts FLOAT, state FLOAT, sum FLOAT);
CREATE TABLE statistics_short_term (id INTEGER PRIMARY KEY, created CHAR(0), created_ts FLOAT, metadata_id INTEGER, start CHAR(0), start_ts FLOAT, mean FLOAT, min FLOAT, max FLOAT,
	last_reset CHAR(0), last_reset_ts FLOAT, state FLOAT, sum FLOAT);
`

const recorderRows = recorderTables + `
INSERT INTO states_meta VALUES (1, 'sensor.bed_1_temperature'), (2, 'sensor.meter'), (3, 'light.kitchen'), (4, 'sensor.outside'), (5, 'binary_sensor.door');
INSERT INTO state_attributes VALUES (1, 0, '{"device_class":"temperature","unit_of_measurement":"°C"}'), (2, 0, '{"device_class":"energy","state_class":"total_increasing"}'),
	(3, 0, '{"device_class":"temperature","unit_of_measurement":"°F"}'), (4, 0, 'no JSON');
INSERT INTO states (state_id, state, last_updated_ts, attributes_id, metadata_id) VALUES
	(1, '20.5', 1704070800.123456, 1, 1), (2, 'unavailable', 1704070801, 1, 1), (3, '12.25', 1704070802, 2, 2), (4, 'on', 1704070803, 4, 3), (5, '70', 1704070804.9999, 3, 4),
	(6, '20.6', 1704070860.5, 1, 1), (7, 'on', 1704070861, NULL, 5), (8, 'warm', 1704070862, 1, 1);
INSERT INTO statistics_meta VALUES (1, 'sensor.bed_1_temperature', 'recorder', '°C', 1, 0, NULL), (2, 'sensor.meter', 'recorder', 'kWh', 0, 1, NULL), (3, 'tibber:cost', 'tibber', 'EUR', 0, 1, NULL);
INSERT INTO statistics_short_term (id, metadata_id, start_ts, mean, min, max, state, sum) VALUES
	(1, 1, 1704070200, 20.1, 20, 20.2, NULL, NULL), (2, 1, 1704070800, 20.5, 20.5, 20.5, NULL, NULL);
INSERT INTO statistics (id, metadata_id, start_ts, mean, min, max, state, sum) VALUES
	(1, 1, 1704063600, 19, 18, 20, NULL, NULL), (2, 1, 1704067200, 20, 19, 21, NULL, NULL), (3, 2, 1704063600, NULL, NULL, NULL, 11.5, 4), (4, 3, 1704063600, NULL, NULL, NULL, 3, 3);
`

func TestRecorderDatabase(t *testing.T) {
	file := openScript(t, recorderRows)
	f := readRows(t, file, Options{})
	assert.Equal(t, []string{
		"1: 2024-01-01T01:00:00.123 bed_1 temperature = 20.5",
		"3: 2024-01-01T01:00:02.000 meter energy = 12.25",
		"5: 2024-01-01T01:00:04.999 outside temperature = 70",
		"6: 2024-01-01T01:01:00.500 bed_1 temperature = 20.6",
		"1: 2024-01-01T00:50:00.000 bed_1 temperature = 20.1",
		"1: 2023-12-31T23:00:00.000 bed_1 temperature = 19",
		"3: 2024-01-01T00:00:00.000 meter energy = 11.5",
		"4: 2024-01-01T00:00:00.000 cost value = 3",
	}, f.values)
	assert.Empty(t, f.rejected)
	assert.Contains(t, strings.Join(f.left, "\n"), "light.kitchen: it is no sensor")
	assert.Contains(t, f.last[2].Series.Note, "°F")

	none := readRows(t, file, Options{Statistics: "none"})
	assert.Equal(t, f.values[:4], none.values)
	all := readRows(t, file, Options{Statistics: "all", Extremes: true})
	assert.Contains(t, all.values, "2: 2024-01-01T00:00:00.000 bed_1 temperature = 20")
	assert.Contains(t, all.values, "2: 2024-01-01T00:00:00.000 bed_1 temperature_min = 19")
	assert.Contains(t, all.values, "2: 2024-01-01T00:00:00.000 bed_1 temperature_max = 21")

	m, err := ReadMap(nil, strings.NewReader("binary_sensor.door,porch,open\nsensor.meter,-,\nsensor.outside,,heat\n"))
	require.NoError(t, err)
	mapped := readRows(t, file, Options{Map: m, Statistics: "none"})
	assert.Contains(t, mapped.values, "7: 2024-01-01T01:01:01.000 porch open = 1")
	assert.Contains(t, mapped.values, "5: 2024-01-01T01:00:04.999 outside heat = 70")
	assert.NotContains(t, strings.Join(mapped.values, "\n"), "meter")
	_, err = NewRows(t.Context(), HomeAssistant, file, Place{}, Options{Statistics: "some"})
	assert.ErrorIs(t, err, ErrOptions)
}

// Before 2023 states had their entity and the time as text; a database that was brought up to date has rows of both kinds.
func TestRecorderDatabaseOfEarlierYears(t *testing.T) {
	const rows = ` (1, 'sensor.bed_1_humidity', '55', '{"device_class":"humidity"}', '2022-05-01 12:00:00.123456'), (2, 'sensor.bed_1_humidity', 'unknown', '', '2022-05-01 12:00:01');`
	want := []string{"1: 2022-05-01T12:00:00.123 bed_1 humidity = 55"}
	old := readRows(t, openScript(t, `CREATE TABLE states (state_id INTEGER PRIMARY KEY, entity_id VARCHAR(255), state VARCHAR(255), attributes TEXT, last_updated DATETIME);
		INSERT INTO states VALUES`+rows), Options{})
	assert.Equal(t, want, old.values)

	mixed := readRows(t, openScript(t, recorderTables+`INSERT INTO states (state_id, entity_id, state, attributes, last_updated) VALUES`+rows+
		`INSERT INTO states_meta VALUES (1, 'sensor.bed_1_humidity'); INSERT INTO states (state_id, state, last_updated_ts, metadata_id) VALUES (3, '56', 1704070800, 1);`), Options{})
	assert.Equal(t, append(want, "3: 2024-01-01T01:00:00.000 bed_1 humidity = 56"), mixed.values)
	assert.Empty(t, mixed.rejected)
}

func TestRowsAreReadOnFromEveryPlace(t *testing.T) {
	var script strings.Builder
	script.WriteString(`CREATE TABLE reading (device TEXT, time INTEGER, metric TEXT, value REAL, received INTEGER);`)
	for i := range 3 * stepRows / 2 {
		fmt.Fprintf(&script, "INSERT INTO reading VALUES ('a', %d, 'ph', 6.5, 7);", 1704067200000+i)
	}
	script.WriteString(`INSERT INTO reading VALUES (NULL, 1, 'ph', 6, 0), ('a', 1, NULL, 6, 0), ('a', 1.5, 'ph', 6, 0), ('a', 1, 'ph', 'x', 0)`)
	for _, file := range []*foreign.File{openScript(t, script.String()), openScript(t, recorderRows)} {
		whole := readRows(t, file, Options{})
		tables, err := file.Tables(t.Context())
		require.NoError(t, err)
		format := DatabaseFormat(tables)
		if format == SQLite {
			assert.Len(t, whole.rejected, 4)
			assert.Equal(t, int64(7), whole.last[0].Received)
		}
		r, err := NewRows(t.Context(), format, file, Place{}, Options{})
		require.NoError(t, err)
		before := &found{}
		for r.Next(before) == nil {
			again, err := NewRows(t.Context(), format, file, r.Place(), Options{})
			require.NoError(t, err)
			assert.Equal(t, whole.values, append(append([]string{}, before.values...), readAll(t, again).values...))
		}
	}
	_, err := NewRows(t.Context(), CSV, openScript(t, recorderTables), Place{}, Options{})
	assert.ErrorIs(t, err, ErrOptions)
}
