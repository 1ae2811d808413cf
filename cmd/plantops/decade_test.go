package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stride is how much time passes at once.
const stride = 2 * aDay

// decade is ten years on one box, with two devices that send at each stride.
type decade struct {
	*box
	devices []*sensor
	days    int
}

// live lets days pass: each of them devices send, and what is due each hour or minute is done once.
func (d *decade) live(days int) {
	d.t.Helper()
	for until := d.days + days; d.days < until; d.days += int(stride / aDay) {
		d.pass(stride)
		d.upkeep(stride)
		for _, s := range d.devices {
			if d.days%30 < 2 {
				require.NoError(d.t, s.connect(), "%s after %d days", s.id, d.days)
			}
			s.send()
		}
	}
}

// upkeep is what the parts of serve do by themselves, whose timers run in real time.
func (d *decade) upkeep(passed time.Duration) {
	d.t.Helper()
	_, err := d.control.ReloadCertificates(d.t.Context())
	require.NoError(d.t, err)
	_, _, err = d.server.DeleteOld(d.t.Context(), passed)
	require.NoError(d.t, err)
}

// wrong is a while with a wrong clock: the devices send, and nothing is deleted, expires or is made.
func (d *decade) wrong(passed time.Duration) {
	d.t.Helper()
	require.NotEmpty(d.t, d.doubt())
	served, authorities := d.authority.ServerPEM(), d.authority.Fingerprints()
	for _, s := range d.devices {
		s.send()
	}
	d.pass(passed)
	d.upkeep(100 * 365 * aDay)
	for _, s := range d.devices {
		s.send()
	}
	assert.Equal(d.t, served, d.authority.ServerPEM())
	assert.Equal(d.t, authorities, d.authority.Fingerprints())
}

// right is what a time server does.
func (d *decade) right() {
	d.t.Helper()
	d.set(0, true)
	d.settled()
	d.set(0, false)
	d.upkeep(0)
	for _, s := range d.devices {
		require.NoError(d.t, s.connect())
	}
}

// plugIn starts the machine; devices connect without TLS, because what it serves may have ended meanwhile.
func (d *decade) plugIn() {
	d.t.Helper()
	d.boot()
	for _, s := range d.devices {
		s.connectPlain()
	}
}

const kept = 2 * 365 * aDay // store.retention

func TestADecade(t *testing.T) {
	began := firstDay
	d := &decade{box: newBox(t, "MQTT_USE_TLS=true", "PLANTOPS_STORE_RETENTION=730d")}
	d.boot()
	d.devices = []*sensor{d.newSensor("bed-1"), d.newSensor("bed-2")}
	for _, s := range d.devices {
		require.NoError(t, s.connect())
	}
	first := d.authority.Fingerprints()
	require.Len(t, first, 1)

	d.live(200)
	d.set(-time.Second, false) // a leap second: the clock shows one twice
	d.live(165)
	require.Empty(t, d.doubt(), "neither a leap second nor summer time is a jump")
	d.set(0, false)

	for _, year := range []int{2, 3} { // a power cut, and the machine begins in 1970
		d.powerCut(10 * time.Minute)
		d.setTo(time.Unix(60, 0))
		d.plugIn()
		d.wrong(30 * time.Second)
		d.right()
		d.live(365*year - d.days)
	}
	d.setTo(time.Unix(60, 0)) // while it runs
	d.wrong(time.Hour)
	d.right()

	d.set(730*aDay, false) // two years ahead for 8 s
	d.wrong(8 * time.Second)
	d.right()
	d.live(100)
	d.set(10*aDay, false) // ten days ahead for most of a day
	d.wrong(20 * time.Hour)
	d.right()
	d.live(265)

	lived := d.truth()
	for _, s := range d.devices {
		s.nothingLost(lived.Add(-kept))
	}
	d.powerCut(365 * aDay) // a year switched off; then the clock goes on where it stopped
	d.set(-365*aDay, false)
	d.plugIn()
	d.wrong(time.Minute)
	d.right()
	w, err := d.server.Retention(t.Context())
	require.NoError(t, err)
	assert.True(t, w.Waits, "a year of readings came due at once, and waits for a person")
	for _, s := range d.devices {
		s.nothingLost(lived.Add(-kept))
	}
	d.days += 365

	d.live(8*365 - d.days)
	rolled := d.authority.Fingerprints()
	require.Len(t, rolled, 2, "three years before its end the authority has a successor")
	assert.Equal(t, first[0], rolled[0])
	d.devices[0].takeRoots() // the other one's owner waits for another year
	d.live(365)
	d.devices[1].takeRoots()
	d.live(365 + 60)

	_, until, _ := d.authority.Life()
	assert.True(t, until.After(d.truth().Add(5*365*aDay)))
	assert.True(t, d.truth().After(began.Add(10*365*aDay)), "the first authority has ended")
	assert.Empty(t, d.doubt())
	for _, s := range d.devices {
		require.NoError(t, s.connect(), s.id)
		s.send()
		s.nothingLost(d.truth().Add(-kept))
	}
	status, err := d.control.Status(t.Context())
	require.NoError(t, err)
	assert.Zero(t, status.Messages.Difference)
	for _, device := range status.Devices {
		assert.True(t, device.Online, device.ID)
	}
}
