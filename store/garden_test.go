package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/people"
)

// someGarden makes a plant that a device serves, with all that can be said of it, and who looks at it.
func someGarden(t *testing.T, s *Store, i int) garden.Plant {
	t.Helper()
	zone, err := s.Garden().AddZone(t.Context(), garden.Zone{Kind: garden.Bench, Name: fmt.Sprint("Bench ", i)})
	require.NoError(t, err)
	low, high := 20.5, 60.0
	plant, err := s.Garden().AddPlant(t.Context(), garden.Plant{Name: fmt.Sprint("Fern ", i), Species: "Nephrolepis exaltata", Zone: zone.ID,
		Position: &garden.Position{X: 1, Y: 2.5}, Thresholds: []garden.Threshold{{Metric: "soil_moisture", Min: &low, Max: &high}, {Metric: "temperature", Max: &high}}})
	require.NoError(t, err)
	_, err = s.Garden().Assign(t.Context(), garden.Assignment{Device: fmt.Sprint("bed-", i), Plant: plant.ID, Since: noon})
	require.NoError(t, err)
	_, err = s.Garden().AddNote(t.Context(), garden.Note{Plant: plant.ID, Time: noon, Kind: garden.Watered, Text: "half a litre", Author: "anna"})
	require.NoError(t, err)
	_, _, err = s.RegisterDevice(t.Context(), garden.Registration{MAC: fmt.Sprintf("24:6f:28:00:00:%02x", i), Firmware: "1.2.3", Sensors: []string{"soil"}})
	require.NoError(t, err)
	_, _, err = s.People().AddToken(t.Context(), fmt.Sprint("script-", i), people.Viewer)
	require.NoError(t, err)
	_, _, err = s.People().MakeSession(t.Context(), fmt.Sprint("person-", i), time.Hour)
	require.NoError(t, err)
	return plant
}

// gardenOf counts what there is. What is read without an index is not in the way of one that is damaged.
func gardenOf(t *testing.T, s *Store) map[string]int {
	t.Helper()
	plan, err := s.Garden().Plan(t.Context())
	require.NoError(t, err)
	n := map[string]int{"zones": len(plan.Zones()), "plants": len(plan.Plants())}
	for _, p := range plan.Plants() {
		n["thresholds"] += len(p.Thresholds)
		n["assignments"] += len(plan.Assignments(p.ID))
	}
	for table, column := range map[string]string{"note": "text", "registration": "sensors", "web_session": "seen", "api_token": "role"} {
		require.NoError(t, s.each(t.Context(), func(scan func(...any) error) error {
			var value any
			n[table]++
			return scan(&value)
		}, `SELECT `+column+` FROM `+table))
	}
	return n
}

func TestTheGardenOfARunningServerOutlivesItsTables(t *testing.T) {
	good, err := os.ReadFile(filledFile(t))
	require.NoError(t, err)
	for _, table := range []string{"zone", "plant", "threshold", "assignment", "api_token", "note", "registration", "web_session", "account"} {
		t.Run(table, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "plantops.db")
			require.NoError(t, os.WriteFile(path, good, 0o600))
			s := openTest(t, Options{Path: path})
			plan, err := s.Garden().Plan(t.Context())
			require.NoError(t, err)
			tokens, err := s.People().Tokens(t.Context())
			require.NoError(t, err)
			page, err := s.w.number(`SELECT rootpage FROM sqlite_schema WHERE name = '` + table + `'`)
			require.NoError(t, err)
			execute(t, s, `PRAGMA cache_size = 0`) // what is in memory would hide the damage
			require.NoError(t, s.reopenReaders())
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = file.WriteAt(bytes.Repeat([]byte{0xA5}, pageBytes), (page-1)*pageBytes)
			require.NoError(t, err)
			defer func() { _ = file.Close() }() // not before: that would end the locks of this process

			require.ErrorIs(t, s.Check(t.Context()), ErrDamaged)
			mustAppend(t, s, telemetry("bed-1", noon+3_600_000, Value{"temperature", 1}))
			mustRegain(t, s)
			require.NoError(t, s.Check(t.Context()))
			after, err := s.Garden().Plan(t.Context())
			require.NoError(t, err)
			assert.Equal(t, plan, after)
			tokensAfter, err := s.People().Tokens(t.Context())
			require.NoError(t, err)
			assert.Equal(t, tokens, tokensAfter)
			list, err := s.Salvages(t.Context())
			require.NoError(t, err)
			require.Len(t, list, 1)
			if table == "note" || table == "registration" || table == "web_session" {
				assert.Contains(t, list[0].Lost, "of table "+table)
			} else {
				assert.Empty(t, list[0].Lost)
			}
			a, known := s.Account("person-1")
			require.True(t, known)
			assert.Equal(t, people.Operator, a.WebRole)
		})
	}
}
