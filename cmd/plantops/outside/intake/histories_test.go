//go:build linux

package intake

import (
	"bufio"
	"database/sql"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"
)

// start is when the histories begin.
var start = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

const every = 5 * time.Minute

// metric is one of what a device measures.
type metric struct {
	name  string
	value func(device int, at time.Time) float64
}

func round(v float64, digits int) float64 {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'f', digits, 64), 64)
	return v
}

var metrics = []metric{
	{"humidity", func(d int, at time.Time) float64 {
		return round(55+20*math.Sin(float64(at.Unix())/13751+float64(d)), 1)
	}},
	{"ph", func(d int, at time.Time) float64 { return round(6+math.Sin(float64(at.Unix())/864000+float64(d))/2, 2) }},
	{"soil_moisture", func(d int, at time.Time) float64 {
		return round(40+10*math.Cos(float64(at.Unix())/400000+float64(d)), 1)
	}},
	{"temperature", func(d int, at time.Time) float64 { return round(20+8*math.Sin(float64(at.Unix())/13751-float64(d)), 2) }},
}

// writeInflux writes what "influxd inspect export-lp" does of a bucket: for each shard of a week the series in order of their key,
// one field after the other. It returns the number of values.
func writeInflux(t *testing.T, path string, devices, days int) (values int64) {
	t.Helper()
	file, err := os.Create(path)
	require.NoError(t, err)
	out := bufio.NewWriterSize(file, 1<<20)
	end := start.AddDate(0, 0, days)
	for week := start; week.Before(end); week = week.AddDate(0, 0, 7) {
		for d := range devices {
			for _, m := range metrics {
				for at := week; at.Before(week.AddDate(0, 0, 7)) && at.Before(end); at = at.Add(every) {
					fmt.Fprintf(out, "greenhouse,device=north-%d,house=the\\ north\\,\\ old %s=%v %d\n", d+1, m.name, m.value(d, at), at.UnixNano())
					values++
				}
			}
		}
	}
	require.NoError(t, out.Flush())
	require.NoError(t, file.Close())
	return values
}

// recorderSchema are the tables of Home Assistant's recorder that hold values: homeassistant/components/recorder/db_schema.py, version 43.
const recorderSchema = `
CREATE TABLE states_meta (metadata_id INTEGER NOT NULL, entity_id VARCHAR(255), PRIMARY KEY (metadata_id));
CREATE TABLE state_attributes (attributes_id INTEGER NOT NULL, hash BIGINT, shared_attrs TEXT, PRIMARY KEY (attributes_id));
CREATE TABLE states (state_id INTEGER NOT NULL, entity_id CHAR(0), state VARCHAR(255), attributes CHAR(0), event_id SMALLINT, last_changed CHAR(0), last_changed_ts FLOAT,
	last_reported_ts FLOAT, last_updated CHAR(0), last_updated_ts FLOAT, old_state_id INTEGER, attributes_id INTEGER, context_id CHAR(0), context_user_id CHAR(0),
	context_parent_id CHAR(0), origin_idx SMALLINT, context_id_bin BLOB, context_user_id_bin BLOB, context_parent_id_bin BLOB, metadata_id INTEGER, PRIMARY KEY (state_id),
	FOREIGN KEY(old_state_id) REFERENCES states (state_id), FOREIGN KEY(attributes_id) REFERENCES state_attributes (attributes_id), FOREIGN KEY(metadata_id) REFERENCES states_meta (metadata_id));
CREATE INDEX ix_states_metadata_id_last_updated_ts ON states (metadata_id, last_updated_ts);
CREATE INDEX ix_states_last_updated_ts ON states (last_updated_ts);
CREATE TABLE statistics_meta (id INTEGER NOT NULL, statistic_id VARCHAR(255), source VARCHAR(32), unit_of_measurement VARCHAR(255), has_mean BOOLEAN, has_sum BOOLEAN, name VARCHAR(255), PRIMARY KEY (id));
CREATE TABLE statistics (id INTEGER NOT NULL, created CHAR(0), created_ts FLOAT, metadata_id INTEGER, start CHAR(0), start_ts FLOAT, mean FLOAT, min FLOAT, max FLOAT,
	last_reset CHAR(0), last_reset_ts FLOAT, state FLOAT, sum FLOAT, PRIMARY KEY (id), FOREIGN KEY(metadata_id) REFERENCES statistics_meta (id) ON DELETE CASCADE);
CREATE UNIQUE INDEX ix_statistics_statistic_id_start_ts ON statistics (metadata_id, start_ts);
CREATE TABLE statistics_short_term (id INTEGER NOT NULL, created CHAR(0), created_ts FLOAT, metadata_id INTEGER, start CHAR(0), start_ts FLOAT, mean FLOAT, min FLOAT, max FLOAT,
	last_reset CHAR(0), last_reset_ts FLOAT, state FLOAT, sum FLOAT, PRIMARY KEY (id), FOREIGN KEY(metadata_id) REFERENCES statistics_meta (id) ON DELETE CASCADE);
`

// recorded is what a database of Home Assistant holds.
type recorded struct {
	states, hours int64 // values that are to be taken over
}

// writeRecorder makes a database of Home Assistant whose program still has it open: each device has its states of the last tenth of
// the time, as the recorder keeps them, and hourly statistics of all of it; and every second device its states of all of the time.
func writeRecorder(t *testing.T, path string, devices, days int) (is recorded) {
	t.Helper()
	db, err := sql.Open("sqlite", path+"?_pragma=journal_mode(wal)")
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.Exec(recorderSchema)
	require.NoError(t, err)
	end := start.AddDate(0, 0, days)
	recent := end.Add(-end.Sub(start) / 10).Truncate(time.Hour)

	tx, err := db.Begin()
	require.NoError(t, err)
	prepare := func(text string) func(args ...any) {
		s, err := tx.Prepare(text)
		require.NoError(t, err)
		return func(args ...any) {
			_, err := s.Exec(args...)
			require.NoError(t, err)
		}
	}
	meta, attributes, statistic := prepare(`INSERT INTO states_meta VALUES (?, ?)`), prepare(`INSERT INTO state_attributes VALUES (?, 1, ?)`),
		prepare(`INSERT INTO statistics_meta VALUES (?, ?, 'recorder', '', 1, 0, NULL)`)
	state := prepare(`INSERT INTO states (state, last_updated_ts, attributes_id, metadata_id, origin_idx) VALUES (?, ?, ?, ?, 0)`)
	hour := prepare(`INSERT INTO statistics (created_ts, metadata_id, start_ts, mean, min, max) VALUES (?, ?, ?, ?, ?, ?)`)
	id := func(d, m int) int { return d*len(metrics) + m + 1 }
	for d := range devices {
		for i, m := range metrics {
			entity := fmt.Sprintf("sensor.house_%d_%s", d+1, m.name)
			meta(id(d, i), entity)
			attributes(id(d, i), fmt.Sprintf(`{"state_class":"measurement","device_class":%q,"friendly_name":"x"}`, m.name))
			statistic(id(d, i), entity)
		}
	}
	for at := start; at.Before(end); at = at.Add(every) {
		for d := range devices {
			for i, m := range metrics {
				seconds := float64(at.UnixMilli())/1000 + 0.25
				if d%2 == 0 || !at.Before(recent) {
					state(strconv.FormatFloat(m.value(d, at), 'f', -1, 64), seconds, id(d, i), id(d, i))
					is.states++
					if at.Minute() == 0 && at.Hour() == 3 {
						state("unavailable", seconds+1, id(d, i), id(d, i))
					}
				}
				if at.Minute() == 0 {
					hour(seconds, id(d, i), float64(at.Unix()), m.value(d, at)+0.125, 0, 1)
					if d%2 == 1 && !at.Add(time.Hour).After(recent) {
						is.hours++
					}
				}
			}
		}
	}
	require.NoError(t, tx.Commit())
	return is
}

// inDir is a file beside the data directory.
func inDir(dir, name string) string { return filepath.Join(filepath.Dir(dir), name) }
