package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/people"
)

const hour = int64(time.Hour / time.Millisecond)

// place is a store with a clock that tests set.
type place struct {
	*Store
	t      *testing.T
	now    int64
	unsure bool
}

func openPlace(t *testing.T) *place {
	p := &place{t: t, now: noon}
	p.open(filepath.Join(t.TempDir(), "plantops.db"))
	return p
}

func (p *place) open(path string) {
	p.Store = openTest(p.t, Options{Path: path, Now: func() time.Time { return time.UnixMilli(p.now) }, Unsure: func() bool { return p.unsure }})
}

// crashed opens what a process that was killed has left.
func (p *place) crashed() {
	p.t.Helper()
	path := copyFiles(p.t, p.Store)
	require.NoError(p.t, p.Close())
	p.open(path)
}

func (p *place) plant(name string) garden.Plant {
	p.t.Helper()
	plant, err := p.Garden().AddPlant(p.t.Context(), garden.Plant{Name: name})
	require.NoError(p.t, err)
	return plant
}

func (p *place) device(names ...string) {
	p.t.Helper()
	for _, name := range names {
		_, err := p.AddDevice(p.t.Context(), name)
		require.NoError(p.t, err)
	}
}

func (p *place) plan() *garden.Plan {
	p.t.Helper()
	plan, err := p.Garden().Plan(p.t.Context())
	require.NoError(p.t, err)
	return plan
}

// send stores readings of a device, one a minute, that arrive as they are made.
func (p *place) send(device, metric string, from int64, minutes int, value float64) {
	p.t.Helper()
	var batch []Message
	for i := range minutes {
		batch = append(batch, telemetry(device, from+int64(i)*60_000, Value{metric, value + float64(i%10)}))
	}
	for _, o := range mustAppend(p.t, p.Store, batch...) {
		require.Equal(p.t, Stored, o)
	}
}

// of counts the readings of a plant by device, and sums up its buckets.
func (p *place) of(plant string) (devices map[string]int, inBuckets int64) {
	p.t.Helper()
	v, err := p.View(p.t.Context())
	require.NoError(p.t, err)
	defer func() { require.NoError(p.t, v.Close()) }()
	h := p.plan().History(v, plant)
	devices = map[string]int{}
	for r, err := range history.Readings(p.t.Context(), h, Query{}) {
		require.NoError(p.t, err)
		devices[r.Device]++
	}
	for s, err := range h.Reduce(p.t.Context(), Query{}, history.Reduction{Points: 50}) {
		require.NoError(p.t, err)
		for _, b := range s.Buckets {
			inBuckets += b.Count
		}
	}
	return devices, inBuckets
}

// The story of one pot: its sensor is replaced, the old one moves on, the new one breaks and is removed; the history stays with the pot,
// wherever readings are and whatever is killed.
func TestTheHistoryOfAPlantGoesOnWhenItsSensorIsReplaced(t *testing.T) {
	p := openPlace(t)
	p.device("probe-1", "probe-2")
	fern, basil := p.plant("Fern"), p.plant("Basil")
	_, err := p.Garden().MoveDevice(t.Context(), "probe-1", fern.ID)
	require.NoError(t, err)
	p.send("probe-1", "soil", noon, 700, 30) // more than a block has
	flush(t, p.Store)

	p.now = noon + 12*hour
	_, err = p.Garden().MoveDevice(t.Context(), "probe-2", fern.ID)
	require.NoError(t, err)
	_, err = p.Garden().MoveDevice(t.Context(), "probe-1", basil.ID)
	require.NoError(t, err)
	p.send("probe-2", "soil", p.now, 600, 40)
	p.send("probe-1", "soil", p.now, 550, 50)
	flush(t, p.Store, "probe-2")

	// What the first one buffered in the old pot stays with that; what is of no pot's time belongs to the one it is in when it comes.
	for _, at := range []int64{noon + 11*hour + 50*60_000 + 7, noon - 24*hour} {
		m := telemetry("probe-1", at, Value{"soil", 1})
		m.Received = p.now + hour
		mustAppend(t, p.Store, m)
	}
	check := func(when string) {
		t.Helper()
		devices, inBuckets := p.of(fern.ID)
		assert.Equal(t, map[string]int{"probe-1": 701, "probe-2": 600}, devices, when)
		assert.EqualValues(t, 1301, inBuckets, when)
		devices, inBuckets = p.of(basil.ID)
		assert.Equal(t, map[string]int{"probe-1": 551}, devices, when)
		assert.EqualValues(t, 551, inBuckets, when)
	}
	check("before")
	p.now += 10 * hour
	require.NoError(t, p.RemoveDevice(t.Context(), "probe-2"))
	check("a device that is removed leaves its readings to the plant")
	assert.Empty(t, p.plan().Serving(fern.ID, p.now))
	p.crashed()
	check("after a crash")
	require.NoError(t, compacted(t.Context(), p.Store))
	check("in blocks")
	require.NoError(t, p.Garden().DeletePlant(t.Context(), basil.ID))
	p.send("probe-1", "soil", p.now, 5, 60)
	check("a plant that is deleted keeps what it has and gets nothing")

	v, err := p.View(t.Context())
	require.NoError(t, err)
	latest, err := p.plan().Latest(t.Context(), v, fern.ID)
	require.NoError(t, err)
	require.Len(t, latest, 1)
	assert.Equal(t, "probe-2", latest[0].Device)
	assert.Equal(t, noon+12*hour+599*60_000, latest[0].Time)
	latest, err = p.plan().Latest(t.Context(), v, basil.ID)
	require.NoError(t, err)
	require.Len(t, latest, 1)
	assert.Equal(t, noon+12*hour+549*60_000, latest[0].Time)
	require.NoError(t, v.Close())

	_, err = p.PurgeDevice(t.Context(), "probe-2")
	require.NoError(t, err)
	devices, _ := p.of(fern.ID)
	assert.Equal(t, map[string]int{"probe-1": 701}, devices, "what is purged is gone")
	require.NoError(t, p.Check(t.Context()))
}

func TestADeviceServesSeveralPlantsByMetric(t *testing.T) {
	p := openPlace(t)
	p.device("hub")
	fern, basil, fig := p.plant("Fern"), p.plant("Basil"), p.plant("Fig")
	for metric, plant := range map[string]string{"": fig.ID, "soil_1": fern.ID, "soil_2": basil.ID} {
		_, err := p.Garden().Assign(t.Context(), garden.Assignment{Device: "hub", Metric: metric, Plant: plant, Since: noon})
		require.NoError(t, err)
	}
	for i, metric := range []string{"soil_1", "soil_2", "temperature", "humidity"} {
		p.send("hub", metric, noon+int64(i), 20, 5)
	}
	for plant, want := range map[string]int64{fern.ID: 20, basil.ID: 20, fig.ID: 40} {
		_, n := p.of(plant)
		assert.Equal(t, want, n)
	}
	// It moves as a whole: what it served by metric ends too.
	p.now = noon + hour
	moved, err := p.Garden().MoveDevice(t.Context(), "hub", fern.ID)
	require.NoError(t, err)
	again, err := p.Garden().MoveDevice(t.Context(), "hub", fern.ID)
	require.NoError(t, err)
	assert.Equal(t, moved, again, "it says nothing new")
	p.send("hub", "soil_2", p.now, 20, 5)
	_, n := p.of(fern.ID)
	assert.EqualValues(t, 40, n)
	require.NoError(t, p.Garden().UnassignDevice(t.Context(), "hub"))
	assert.Empty(t, p.plan().Serving(fern.ID, p.now))
}

// What is said of a time that is past cuts out what was said before.
func TestALaterWordCountsForItsTime(t *testing.T) {
	p := openPlace(t)
	p.device("probe")
	fern, basil := p.plant("Fern"), p.plant("Basil")
	day := 24 * hour
	first, err := p.Garden().Assign(t.Context(), garden.Assignment{Device: "probe", Plant: fern.ID, Since: noon})
	require.NoError(t, err)
	_, err = p.Garden().Assign(t.Context(), garden.Assignment{Device: "probe", Plant: basil.ID, Since: noon + 2*day, Until: noon + 3*day})
	require.NoError(t, err)
	for at, want := range map[int64]string{noon - 1: "", noon: fern.ID, noon + 2*day - 1: fern.ID, noon + 2*day: basil.ID, noon + 3*day - 1: basil.ID, noon + 3*day: fern.ID} {
		assert.Equal(t, want, p.plan().Owner("probe", "soil", at, at), at-noon)
	}
	list := p.plan().OfDevice("probe")
	require.Len(t, list, 3)
	assert.Equal(t, first.ID, list[0].ID)
	require.NoError(t, p.Garden().Unassign(t.Context(), list[2].ID), "that is from later on: it is gone")
	assert.Len(t, p.plan().OfDevice("probe"), 2)
	_, err = p.Garden().Assign(t.Context(), garden.Assignment{Device: "nobody", Plant: fern.ID})
	require.ErrorIs(t, err, ErrNotFound)
	_, err = p.Garden().Assign(t.Context(), garden.Assignment{Device: "probe", Plant: "none"})
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorIs(t, p.Garden().Unassign(t.Context(), "none"), ErrNotFound)
}

func TestPlantsZonesAndNotesAreKept(t *testing.T) {
	p := openPlace(t)
	g, ctx := p.Garden(), t.Context()
	bench, err := g.AddZone(ctx, garden.Zone{Kind: garden.Bench, Name: "Bench"})
	require.NoError(t, err)
	var plants []garden.Plant
	for i := range 5 {
		p.now++
		low := float64(i)
		plant, err := g.AddPlant(ctx, garden.Plant{Name: fmt.Sprint("Fern ", i), Zone: bench.ID, Thresholds: []garden.Threshold{{Metric: "soil", Min: &low}}})
		require.NoError(t, err)
		plants = append(plants, plant)
	}
	all := p.plan().Plants()
	require.Len(t, all, 5)
	assert.Equal(t, []string{"Fern 2", "Fern 1"}, []string{garden.Page(all, 2, 2)[0].Name, garden.Page(all, 2, 2)[1].Name}, "newest first")

	high := 70.0
	changed, err := g.ChangePlant(ctx, plants[0].ID, func(p *garden.Plant) error {
		p.Name, p.Position, p.ID, p.Created = "Basil", &garden.Position{X: 3.5, Y: 4}, "another", 7
		return nil
	})
	require.NoError(t, err)
	changed, err = g.SetThreshold(ctx, changed.ID, garden.Threshold{Metric: "humidity", Max: &high})
	require.NoError(t, err)
	changed, err = g.SetThreshold(ctx, changed.ID, garden.Threshold{Metric: "soil"})
	require.NoError(t, err)
	assert.Equal(t, garden.Plant{ID: plants[0].ID, Name: "Basil", Zone: bench.ID, Position: &garden.Position{X: 3.5, Y: 4}, Created: plants[0].Created,
		Thresholds: []garden.Threshold{{Metric: "humidity", Max: &high}}}, changed)
	stored, known := p.plan().Plant(changed.ID)
	require.True(t, known)
	assert.Equal(t, changed, stored)
	refused := errors.New("no")
	_, err = g.ChangePlant(ctx, changed.ID, func(p *garden.Plant) error { p.Name = "x"; return refused })
	require.ErrorIs(t, err, refused)
	invalid := (*garden.InvalidError)(nil)
	_, err = g.ChangePlant(ctx, changed.ID, func(p *garden.Plant) error { p.Zone = "none"; return nil })
	require.ErrorAs(t, err, &invalid)
	assert.Equal(t, "zone", invalid.Field)

	for i, kind := range []garden.NoteKind{garden.Watered, garden.Fed, garden.Watered} {
		_, err := g.AddNote(ctx, garden.Note{Plant: changed.ID, Kind: kind, Time: noon + int64(i), Author: "anna"})
		require.NoError(t, err)
	}
	ofZone, err := g.AddNote(ctx, garden.Note{Zone: bench.ID, Kind: garden.NotePlain, Text: "moved to the window\nfor the winter"})
	require.NoError(t, err)
	assert.Equal(t, p.now, ofZone.Time)
	list, total, err := g.Notes(ctx, garden.NoteQuery{Plant: changed.ID, Kinds: []garden.NoteKind{garden.Watered}, From: noon, To: noon + 3, Limit: 1})
	require.NoError(t, err)
	assert.Equal(t, 2, total)
	require.Len(t, list, 1)
	assert.Equal(t, noon+2, list[0].Time)
	edited, err := g.ChangeNote(ctx, list[0].ID, func(n *garden.Note) error { n.Text, n.Author = "a litre", "bob"; return nil })
	require.NoError(t, err)
	assert.Equal(t, "anna", edited.Author)
	read, err := g.Note(ctx, edited.ID)
	require.NoError(t, err)
	assert.Equal(t, edited, read)
	require.NoError(t, g.DeleteNote(ctx, edited.ID))
	require.ErrorIs(t, g.DeleteNote(ctx, edited.ID), ErrNotFound)

	p.crashed()
	g = p.Garden()
	require.NoError(t, g.DeleteZone(ctx, bench.ID))
	stored, _ = p.plan().Plant(changed.ID)
	assert.Empty(t, stored.Zone, "its plants are in none")
	_, total, err = g.Notes(ctx, garden.NoteQuery{})
	require.NoError(t, err)
	assert.Equal(t, 2, total, "its notes go with it")
	require.NoError(t, g.DeletePlant(ctx, changed.ID))
	require.ErrorIs(t, g.DeletePlant(ctx, changed.ID), ErrNotFound)
	_, err = g.ChangePlant(ctx, changed.ID, func(*garden.Plant) error { return nil })
	require.ErrorIs(t, err, ErrNotFound)
	assert.Len(t, p.plan().Plants(), 4)
	assert.Len(t, p.plan().AllPlants(), 5)
	require.NoError(t, g.PurgePlant(ctx, changed.ID))
	assert.Len(t, p.plan().AllPlants(), 4)
	require.NoError(t, p.Check(ctx))
}

// Whoever changes the garden, what is read afterwards is what is stored.
func TestManyChangeTheGardenAtOnce(t *testing.T) {
	p := openPlace(t)
	p.device("probe")
	fern := p.plant("Fern")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for k := range 5 {
				other, err := p.Garden().AddPlant(context.Background(), garden.Plant{Name: fmt.Sprint(i, k)})
				assert.NoError(t, err)
				_, err = p.Garden().MoveDevice(context.Background(), "probe", other.ID)
				assert.NoError(t, err)
				_, err = p.Garden().ChangePlant(context.Background(), fern.ID, func(plant *garden.Plant) error {
					plant.Species += "x"
					return nil
				})
				assert.NoError(t, err)
			}
		})
	}
	all.Wait()
	plan := p.plan()
	assert.Len(t, plan.Plants(), 41)
	stored, _ := plan.Plant(fern.ID)
	assert.Len(t, stored.Species, 40)
	require.NoError(t, p.Garden().Reload(t.Context()))
	assert.Equal(t, plan, p.plan())
	assert.Len(t, plan.OfDevice("probe"), 1, "all in one moment: the last one counts")
}

func TestADeviceThatRegistersAgainIsTheSame(t *testing.T) {
	p := openPlace(t)
	id, first, err := p.RegisterDevice(t.Context(), garden.Registration{MAC: "24-6f-28-aa-bb-cc", Firmware: "1.0", Sensors: []string{"soil", "light"}})
	require.NoError(t, err)
	assert.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, id)
	_, ok := p.Authenticate(id, []byte(first), Wait{})
	require.True(t, ok)
	p.now += hour
	again, second, err := p.RegisterDevice(t.Context(), garden.Registration{MAC: "246F28AABBCC", Firmware: "1.1"})
	require.NoError(t, err)
	assert.Equal(t, id, again)
	_, ok = p.Authenticate(id, []byte(first), Wait{})
	assert.False(t, ok, "the old secret is dead")
	_, ok = p.Authenticate(id, []byte(second), Wait{})
	assert.True(t, ok)
	r, err := p.Garden().Registration(t.Context(), id)
	require.NoError(t, err)
	assert.Equal(t, garden.Registration{Device: id, MAC: "24:6F:28:AA:BB:CC", Firmware: "1.1", Sensors: []string{"soil", "light"}, Created: noon, Renewed: noon + hour}, r)

	invalid := (*garden.InvalidError)(nil)
	_, _, err = p.RegisterDevice(t.Context(), garden.Registration{MAC: "aa:bb"})
	require.ErrorAs(t, err, &invalid)
	assert.Equal(t, "mac_address", invalid.Field)

	// Two at once are one device, whose last secret is right.
	var both sync.WaitGroup
	ids := make([]string, 4)
	for i := range ids {
		both.Go(func() {
			var err error
			ids[i], _, err = p.RegisterDevice(context.Background(), garden.Registration{MAC: "24:6F:28:00:00:01"})
			assert.NoError(t, err)
		})
	}
	both.Wait()
	assert.Equal(t, []string{ids[0], ids[0], ids[0], ids[0]}, ids)
	require.NoError(t, p.RemoveDevice(t.Context(), id))
	list, err := p.Garden().Registrations(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, 1)
	anew, _, err := p.RegisterDevice(t.Context(), garden.Registration{MAC: "24:6F:28:AA:BB:CC"})
	require.NoError(t, err)
	assert.NotEqual(t, id, anew, "one that was removed is another device")
}

func TestAnOlderFileGetsAGarden(t *testing.T) {
	p := openPlace(t)
	p.device("probe-1")
	require.NoError(t, p.AddUser(t.Context(), NewUser{Name: "anna", Password: "right-password", Subscribe: []string{"#"}, Admin: true}))
	p.send("probe-1", "soil", noon, 30, 20)
	require.NoError(t, p.Close())
	db, err := sql.Open("sqlite", "file:"+p.path)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), `DROP VIEW plants; DROP VIEW zones; DROP VIEW assignments; DROP TABLE note; DROP TABLE assignment; DROP TABLE threshold; DROP TABLE plant;
		DROP TABLE zone; DROP TABLE registration; DROP TABLE api_token; DROP TABLE web_session; DROP TABLE alert; DROP TABLE outbox; DROP TABLE alert_key;
		ALTER TABLE account DROP COLUMN web_role; DROP TABLE sql_kept; PRAGMA user_version = 10`)
	require.NoError(t, err)
	require.NoError(t, db.Close())

	p.open(p.path)
	a, known := p.Account("anna")
	require.True(t, known)
	assert.Empty(t, a.WebRole, "what somebody may do with topics says nothing of the page")
	assert.True(t, a.Admin)
	_, ok := p.Authenticate("anna", []byte("right-password"), Wait{})
	assert.True(t, ok)
	fern := p.plant("Fern")
	_, err = p.Garden().Assign(t.Context(), garden.Assignment{Device: "probe-1", Plant: fern.ID, Since: noon + 10*60_000})
	require.NoError(t, err)
	_, n := p.of(fern.ID)
	assert.EqualValues(t, 20, n, "readings that were there before are the plant's")
	require.NoError(t, p.Check(t.Context()))
}

func TestOtherProgramsReadTheGarden(t *testing.T) {
	p := openPlace(t)
	p.device("probe-1")
	zone, err := p.Garden().AddZone(t.Context(), garden.Zone{Kind: garden.Room, Name: "Window"})
	require.NoError(t, err)
	fern, err := p.Garden().AddPlant(t.Context(), garden.Plant{Name: "Fern", Zone: zone.ID, Position: &garden.Position{X: 1, Y: 2}})
	require.NoError(t, err)
	for _, metric := range []string{"", "soil"} {
		_, err = p.Garden().Assign(t.Context(), garden.Assignment{Device: "probe-1", Plant: fern.ID, Metric: metric, Since: noon})
		require.NoError(t, err)
	}
	p.now++
	require.NoError(t, p.Garden().DeletePlant(t.Context(), fern.ID))
	assert.Equal(t, []string{fmt.Sprint(fern.ID, " Fern ", "<nil> ", zone.ID, " 1 2 ", noon, " ", noon+1)}, asked(t, p.path, `SELECT id, name, species, zone, x, y, created, deleted FROM plants`))
	assert.Equal(t, []string{fmt.Sprint(zone.ID, " Window room ", noon)}, asked(t, p.path, `SELECT id, name, kind, created FROM zones`))
	assert.Equal(t, []string{fmt.Sprint(fern.ID, " probe-1 <nil> ", noon, " ", noon+1), fmt.Sprint(fern.ID, " probe-1 soil ", noon, " ", noon+1)},
		asked(t, p.path, `SELECT plant, device, metric, since, until FROM assignments ORDER BY metric`))
}

func TestAReaderBesideTheServerSeesTheGarden(t *testing.T) {
	p := openPlace(t)
	reader := openTest(t, Options{Path: p.path, ReadOnly: true})
	p.plant("Fern")
	plan, err := reader.Garden().Plan(t.Context())
	require.NoError(t, err)
	assert.Len(t, plan.Plants(), 1)
	_, err = reader.Garden().AddPlant(t.Context(), garden.Plant{Name: "Basil"})
	require.ErrorContains(t, err, "read-only")
	_, _, err = p.People().AddToken(t.Context(), "script", people.Viewer)
	require.NoError(t, err)
	tokens, err := reader.People().Tokens(t.Context())
	require.NoError(t, err)
	assert.Len(t, tokens, 1)
}
