package alert

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/history"
)

const look = 10 * time.Second

// probe is a device of a test with its metrics.
type probe struct {
	every  time.Duration
	phase  time.Duration
	silent bool
	mute   map[string]bool // metrics that do not come
	values map[string]float64
	late   time.Duration // its readings are so old when they come

	seen int64
	last map[string]history.Reading
}

// scene is a box with devices, and a machine that looks at it.
type scene struct {
	t       *testing.T
	rules   Rules
	machine *Machine
	now     time.Time
	jumped  time.Duration // by which the clock on the wall is wrong
	unsure  string
	probes  map[string]*probe
	faults  []Fault
	plan    *garden.Plan
	ran     time.Duration

	open map[int64]Alert // as kept
	said []Message
	at   []time.Time
}

func newScene(t *testing.T, rules Rules) *scene {
	s := &scene{t: t, rules: rules, now: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC), probes: map[string]*probe{}, open: map[int64]Alert{}}
	if s.rules.OfflineAfter == 0 {
		s.rules.OfflineAfter = 3 * time.Minute
	}
	s.machine = New(s.rules, State{Box: "box"}, nil, nil)
	return s
}

func (s *scene) add(id string, every time.Duration, values map[string]float64) *probe {
	p := &probe{every: every, phase: time.Duration(len(s.probes)*7%50) * time.Second, values: values, mute: map[string]bool{}, last: map[string]history.Reading{}}
	s.probes[id] = p
	return p
}

// plant gives a plant to each device.
func (s *scene) plant(thresholds ...garden.Threshold) {
	var plants []garden.Plant
	var assignments []garden.Assignment
	for id := range s.probes {
		plants = append(plants, garden.Plant{ID: "plant-" + id, Name: "Basil " + id, Thresholds: thresholds})
		assignments = append(assignments, garden.Assignment{ID: id, Device: id, Plant: "plant-" + id, Since: 1})
	}
	s.plan = garden.NewPlan(nil, plants, assignments)
}

func (s *scene) wall() time.Time { return s.now.Add(s.jumped) }

// run lets time pass.
func (s *scene) run(length time.Duration) {
	for end := s.now.Add(length); s.now.Before(end); {
		s.now = s.now.Add(look)
		s.ran += look
		s.sendAll()
		s.step(look)
	}
}

// sendAll has the devices send that are due.
func (s *scene) sendAll() {
	for id, p := range s.probes {
		if p.silent || (s.ran+p.phase)%p.every >= look {
			continue
		}
		p.seen = s.wall().UnixMilli()
		for metric, value := range p.values {
			if !p.mute[metric] {
				p.last[metric] = history.Reading{Device: id, Metric: metric, Time: p.seen - p.late.Milliseconds(), Received: p.seen, Value: value, ClockUnsure: s.unsure != ""}
			}
		}
	}
}

func (s *scene) step(passed time.Duration) {
	l := Look{Now: s.wall(), Passed: passed, Unsure: s.unsure, Plan: s.plan, Faults: s.faults, Looked: true}
	for id, p := range s.probes {
		l.Devices = append(l.Devices, Device{id, p.seen})
		for _, r := range p.last {
			l.Readings = append(l.Readings, r)
		}
	}
	s.keep(s.machine.Step(l))
}

func (s *scene) keep(c Changes) {
	for _, a := range c.Alerts {
		if s.open[a.ID] = a; a.Closed != 0 {
			delete(s.open, a.ID)
		}
	}
	for _, m := range c.Messages {
		s.said, s.at = append(s.said, m), append(s.at, s.now)
	}
}

// restart goes on with what was kept, as after a kill; learned or not.
func (s *scene) restart(learned bool) {
	text, err := json.Marshal(s.machine.State())
	require.NoError(s.t, err)
	var state State
	require.NoError(s.t, json.Unmarshal(text, &state))
	var open []Alert
	for _, a := range s.open {
		open = append(open, a)
	}
	var list []Learned
	if learned {
		list = s.machine.Learned()
	}
	s.machine = New(s.rules, state, open, list)
}

// told are the notices of all messages, in words.
func (s *scene) told() (list []string) {
	for _, m := range s.said {
		for i := range m.Notices {
			list = append(list, m.Notices[i].Title())
		}
	}
	return list
}

func number(v float64) *float64 { return &v }

func dry() garden.Threshold { return garden.Threshold{Metric: "soil_moisture", Min: number(20)} }

func TestABreachIsOneAlertAndOneRecovery(t *testing.T) {
	s := newScene(t, Rules{After: 5 * time.Minute, Cooldown: time.Hour})
	p := s.add("bed-1", time.Minute, map[string]float64{"soil_moisture": 30})
	s.plant(dry())
	s.run(time.Hour)
	p.values["soil_moisture"] = 19
	s.run(4 * time.Minute)
	p.values["soil_moisture"] = 21
	s.run(time.Hour)
	assert.Empty(t, s.told(), "a short breach is none")
	p.values["soil_moisture"] = 15.2
	s.run(2 * time.Hour)
	assert.Equal(t, []string{"Basil bed-1: soil moisture too low"}, s.told())
	require.Len(t, s.said[0].Notices, 1)
	a := s.said[0].Notices[0].Alert
	assert.Equal(t, "bed-1", a.Device)
	assert.Equal(t, 15.2, *a.Value)
	assert.Equal(t, 20.0, *a.Limit)
	assert.Contains(t, s.said[0].Body(time.UTC), "soil moisture is 15.2 %, the limit is 20.0 % (bed-1)")
	p.values["soil_moisture"] = 21
	s.run(time.Hour)
	assert.Len(t, s.told(), 1, "within the margin it is not over")
	p.values["soil_moisture"] = 22
	s.run(10 * time.Minute)
	assert.Equal(t, []string{"Basil bed-1: soil moisture too low", "Over: Basil bed-1: soil moisture too low"}, s.told())
	assert.Empty(t, s.machine.Open())
}

func TestTheNextBreachWaitsForTheCooldown(t *testing.T) {
	s := newScene(t, Rules{Cooldown: time.Hour})
	p := s.add("bed-1", time.Minute, map[string]float64{"soil_moisture": 30})
	s.plant(dry())
	s.run(10 * time.Minute)
	for range 10 {
		p.values["soil_moisture"] = 10
		s.run(2 * time.Minute)
		p.values["soil_moisture"] = 30
		s.run(2 * time.Minute)
	}
	assert.Len(t, s.told(), 2)
	p.values["soil_moisture"] = 10
	s.run(time.Hour)
	assert.Len(t, s.told(), 3, "it lasts when the cooldown is over")
}

func TestQuietHoursAreToldInOneMessageAfterwards(t *testing.T) {
	quiet, err := ParseHours("22:00-07:00")
	require.NoError(t, err)
	s := newScene(t, Rules{Quiet: quiet})
	for i := range 6 {
		s.add(fmt.Sprintf("bed-%d", i), time.Minute, map[string]float64{"soil_moisture": 30})
	}
	s.plant(dry())
	s.run(11 * time.Hour) // 23:00
	for _, p := range s.probes {
		p.values["soil_moisture"] = 10
	}
	s.run(7 * time.Hour)
	assert.Empty(t, s.said)
	s.run(2 * time.Hour)
	require.Len(t, s.said, 1)
	assert.Len(t, s.said[0].Notices, 6)
	assert.Equal(t, "6 alerts", s.said[0].Title())
	assert.Equal(t, 7, s.at[0].Hour())
}

func TestANetworkThatFailsIsOneDigestAndOneMore(t *testing.T) {
	s := newScene(t, Rules{After: 5 * time.Minute, Cooldown: time.Hour})
	for i := range 50 {
		s.add(fmt.Sprintf("bed-%d", i), time.Minute, map[string]float64{"temperature": 20})
	}
	s.run(time.Hour)
	for _, p := range s.probes {
		p.silent = true
	}
	s.run(3 * time.Hour)
	assert.LessOrEqual(t, len(s.said), 2)
	assert.Len(t, s.told(), 50)
	for _, p := range s.probes {
		p.silent = false
	}
	s.run(time.Hour)
	assert.LessOrEqual(t, len(s.said), 4)
	assert.Len(t, s.told(), 100)
	assertPairs(t, s)
}

func TestARestartAfterALongOutageTellsNothingOfDevicesThatComeBack(t *testing.T) {
	s := newScene(t, Rules{})
	for i := range 20 {
		s.add(fmt.Sprintf("bed-%d", i), time.Minute, map[string]float64{"temperature": 20, "humidity": 50})
	}
	gone := s.add("gone", time.Minute, map[string]float64{"temperature": 20})
	s.run(time.Hour)
	s.now = s.now.Add(9 * time.Hour)
	s.restart(true)
	for _, p := range s.probes {
		p.silent = true
	}
	s.run(4 * time.Minute) // until the network is up
	for _, p := range s.probes {
		p.silent = p == gone
	}
	s.run(time.Hour)
	assert.Equal(t, []string{"gone is offline"}, s.told())
}

func TestASleeperIsNotOfflineAndASilentSensorIsTold(t *testing.T) {
	s := newScene(t, Rules{})
	sleeper := s.add("sleeper", 30*time.Minute, map[string]float64{"temperature": 20, "soil_moisture": 30})
	s.run(24 * time.Hour)
	assert.Empty(t, s.told())
	sleeper.mute["soil_moisture"] = true
	s.run(time.Hour)
	assert.Empty(t, s.told())
	s.run(time.Hour)
	assert.Equal(t, []string{"sleeper sends no soil moisture"}, s.told())
	s.restart(false)
	s.run(3 * time.Hour)
	assert.Len(t, s.told(), 1)
	sleeper.mute["soil_moisture"] = false
	s.run(time.Hour)
	assert.Equal(t, []string{"sleeper sends no soil moisture", "Over: sleeper sends no soil moisture"}, s.told())
	sleeper.silent = true
	s.run(50 * time.Minute)
	assert.Len(t, s.told(), 2)
	s.run(time.Hour)
	assert.Equal(t, "sleeper is offline", s.told()[2])
}

func TestNothingIsJudgedWhileTheClockIsUnsure(t *testing.T) {
	s := newScene(t, Rules{})
	p := s.add("bed-1", time.Minute, map[string]float64{"soil_moisture": 30})
	other := s.add("bed-2", time.Minute, map[string]float64{"soil_moisture": 30})
	s.plant(dry())
	s.run(time.Hour)
	s.unsure, s.jumped = "it is before the program was built", -20*365*24*time.Hour
	p.values["soil_moisture"], other.silent = 10, true
	s.run(time.Hour)
	assert.Equal(t, []string{"Clock not set"}, s.told())
	s.unsure, s.jumped, other.silent = "", 24*time.Hour, false
	s.run(30 * time.Minute)
	assert.Equal(t, []string{"Clock not set", "Basil bed-1: soil moisture too low", "Over: Clock not set"}, s.told())
	s.jumped = 48 * time.Hour // it is believed, whatever it does
	s.run(time.Hour)
	assert.Len(t, s.told(), 3)
}

func TestBufferedReadingsDoNotAlarmAboutThePast(t *testing.T) {
	s := newScene(t, Rules{})
	p := s.add("bed-1", time.Minute, map[string]float64{"soil_moisture": 30})
	s.plant(dry())
	s.run(time.Hour)
	p.late, p.values["soil_moisture"] = 20*time.Minute, 10
	s.run(10 * time.Minute)
	assert.Empty(t, s.told())
	p.late = 0
	s.run(5 * time.Minute)
	assert.Len(t, s.told(), 1)
}

func TestAStuckSensorIsToldWhereOthersVary(t *testing.T) {
	s := newScene(t, Rules{})
	p := s.add("bed-1", 10*time.Minute, map[string]float64{"temperature": 22, "light_level": 0})
	s.add("bed-2", 10*time.Minute, map[string]float64{"temperature": 20, "light_level": 0})
	s.run(30 * time.Hour)
	assert.Empty(t, s.told(), "nothing varies: a cellar")
	for range 30 {
		s.probes["bed-2"].values["temperature"] += 0.1
		s.run(time.Hour)
	}
	assert.Equal(t, []string{"bed-1: temperature does not change"}, s.told())
	s.restart(false)
	s.run(time.Hour)
	assert.Len(t, s.told(), 1)
	p.values["temperature"] = 21
	s.run(time.Hour)
	assert.Len(t, s.told(), 2)
}

func TestWhatIsAcknowledgedOrSnoozedIsNotRepeated(t *testing.T) {
	s := newScene(t, Rules{Repeat: 6 * time.Hour})
	s.faults = []Fault{{Disk, "/data", "the disk has 100 MB left"}}
	s.run(13 * time.Hour)
	assert.Equal(t, []string{"Disk nearly full", "Still: Disk nearly full", "Still: Disk nearly full"}, s.told())
	id := s.machine.Open()[0].ID
	c, err := s.machine.Snooze(id, 24*time.Hour, s.wall())
	require.NoError(t, err)
	s.keep(c)
	s.run(23 * time.Hour)
	assert.Len(t, s.told(), 3)
	s.restart(true)
	s.run(2 * time.Hour)
	assert.Len(t, s.told(), 4, "the snooze is over, it lasts")
	c, err = s.machine.Acknowledge(id, "anna", s.wall())
	require.NoError(t, err)
	s.keep(c)
	s.restart(true)
	s.run(48 * time.Hour)
	assert.Len(t, s.told(), 4)
	assert.Equal(t, "anna", s.machine.Open()[0].By)
	s.faults = nil
	s.run(time.Minute)
	assert.Equal(t, "Over: Disk nearly full", s.told()[4])
	_, err = s.machine.Acknowledge(id, "anna", s.wall())
	require.ErrorIs(t, err, ErrNotFound)
}

func TestWhatIsNoLongerWatchedIsClosed(t *testing.T) {
	s := newScene(t, Rules{})
	p := s.add("bed-1", time.Minute, map[string]float64{"soil_moisture": 10})
	s.plant(dry())
	s.run(time.Hour)
	p.silent = true
	s.run(time.Hour)
	require.Len(t, s.machine.Open(), 2)
	delete(s.probes, "bed-1")
	s.plan = garden.NewPlan(nil, nil, nil)
	s.run(time.Hour)
	assert.Empty(t, s.machine.Open())
	assert.Equal(t, []string{"No longer watched: Basil bed-1: soil moisture too low", "No longer watched: bed-1 is offline"}, slices.Sorted(slices.Values(s.told()[2:])))
}

func TestHoursFollowTheClockOnTheWall(t *testing.T) {
	h, err := ParseHours("22:00 - 07:30")
	require.NoError(t, err)
	for text, want := range map[string]bool{"21:59": false, "22:00": true, "00:00": true, "07:29": true, "07:30": false, "12:00": false} {
		at, err := time.Parse("15:04", text)
		require.NoError(t, err)
		assert.Equal(t, want, h.Has(at), text)
	}
	for _, wrong := range []string{"22:00", "25:00-07:00", "07:00-07:00", "a-b"} {
		_, err := ParseHours(wrong)
		require.Error(t, err, wrong)
	}
}

// assertPairs checks that each alert was told once when it began, and once when it was over.
func assertPairs(t *testing.T, s *scene) {
	t.Helper()
	begins, ends, ids := map[int64]int{}, map[int64]int{}, map[string]bool{}
	count := func(n Notice) {
		switch n.What {
		case Begins:
			begins[n.Alert.ID]++
		case Ends:
			ends[n.Alert.ID]++
			assert.Positive(t, begins[n.Alert.ID], "alert %d is over before it began", n.Alert.ID)
		}
	}
	for _, m := range s.said {
		assert.False(t, ids[m.ID], "message %s comes twice", m.ID)
		ids[m.ID] = true
		for _, n := range m.Notices {
			count(n)
		}
	}
	for _, n := range s.machine.State().Waiting {
		count(n)
	}
	for id := int64(1); id <= s.machine.State().Alert; id++ {
		_, open := s.open[id]
		assert.Equal(t, 1, begins[id], "alert %d", id)
		if open {
			assert.Zero(t, ends[id], "alert %d", id)
		} else {
			assert.Equal(t, 1, ends[id], "alert %d", id)
		}
	}
}

// Whatever happens, each alert is told once and so is its end, and no ten minutes have more than five messages.
func TestWhateverHappensEachAlertIsToldOnce(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			s := newScene(t, Rules{After: time.Duration(r.IntN(3)) * 2 * time.Minute, Cooldown: time.Duration(r.IntN(2)) * 30 * time.Minute,
				Repeat: time.Duration(r.IntN(2)) * 3 * time.Hour})
			if r.IntN(2) == 0 {
				s.rules.Quiet = Hours{22 * 60, 6 * 60}
			}
			s.restart(false)
			for i := range 12 {
				s.add(fmt.Sprintf("bed-%d", i), time.Duration(1+r.IntN(3)*10)*time.Minute, map[string]float64{"soil_moisture": 30, "temperature": 20, "battery": 80})
			}
			s.plant(dry(), garden.Threshold{Metric: "temperature", Min: number(5), Max: number(30)})
			pick := func() *probe { return s.probes[fmt.Sprintf("bed-%d", r.IntN(12))] }
			for range 250 {
				switch p := pick(); r.IntN(14) {
				case 0, 1, 2:
					p.values["soil_moisture"] = float64(r.IntN(40))
				case 3, 4:
					p.values["temperature"] = float64(r.IntN(45) - 5)
				case 5:
					p.values["battery"] = float64(r.IntN(100))
				case 6, 7:
					p.silent = !p.silent
				case 8:
					p.mute["temperature"] = !p.mute["temperature"]
				case 9:
					s.restart(r.IntN(2) == 0)
				case 10:
					s.now = s.now.Add(time.Duration(r.IntN(600)) * time.Minute)
					s.restart(true)
				case 11:
					s.jumped += time.Duration(r.IntN(120)-60) * time.Minute
				case 12:
					s.unsure = []string{"", "it is wrong"}[r.IntN(2)]
				case 13:
					s.faults = []Fault{{Disk, "/", "full"}, {Backup, "", "late"}, {Certificate, "ca", "expires"}}[:r.IntN(4)]
				}
				s.run(time.Duration(r.IntN(30)) * time.Minute)
			}
			assertPairs(t, s)
			assert.Greater(t, len(s.said), 20)
			if s.jumped == 0 {
				for i := burst; i < len(s.at); i++ {
					assert.GreaterOrEqual(t, s.at[i].Sub(s.at[i-burst]), burstTime-look, "message %d", i)
				}
			}
		})
	}
}
