package garden

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWhatIsNotAsItMayBeIsNamed(t *testing.T) {
	low, high, nan := 1.0, 2.0, math.NaN()
	plant := func(change func(*Plant)) error {
		p := Plant{Name: "Fern", Species: "Nephrolepis exaltata", Position: &Position{X: -1.5, Y: 3}, Thresholds: []Threshold{{"temperature", &low, nil}, {"soil", &low, &low}}}
		change(&p)
		return p.Check()
	}
	assignment := func(change func(*Assignment)) error {
		a := Assignment{Device: "probe", Plant: "fern", Since: 1, Until: 2}
		change(&a)
		return a.Check()
	}
	note := func(change func(*Note)) error {
		n := Note{Plant: "fern", Time: 1, Kind: NotePlain, Text: "two\nlines\tand a tab", Author: "anna"}
		change(&n)
		return n.Check()
	}
	registration := func(change func(*Registration)) error {
		r := Registration{MAC: "24:6f:28:aa:bb:cc", Firmware: "1.0", Sensors: []string{"soil"}}
		change(&r)
		return r.Check()
	}
	for name, c := range map[string]struct {
		err  error
		says string // "": nothing is wrong
	}{
		"a plant":                     {plant(func(*Plant) {}), ""},
		"without a name":              {plant(func(p *Plant) { p.Name = "" }), "plant: name: it has 0 bytes"},
		"a long name":                 {plant(func(p *Plant) { p.Name = strings.Repeat("x", 201) }), "plant: name: it has 201 bytes"},
		"a name of spaces":            {plant(func(p *Plant) { p.Name = " " }), "plant: name: spaces at the ends"},
		"a name with a line break":    {plant(func(p *Plant) { p.Name = "a\nb" }), "plant: name: control characters"},
		"a name that is no text":      {plant(func(p *Plant) { p.Name = "\xff" }), "plant: name: it is not valid UTF-8"},
		"a species with a bell":       {plant(func(p *Plant) { p.Species = "a\ab" }), "plant: species"},
		"a position nowhere":          {plant(func(p *Plant) { p.Position.X = math.Inf(1) }), "plant: position"},
		"min above max":               {plant(func(p *Plant) { p.Thresholds[0] = Threshold{"soil_2", &high, &low} }), "threshold of soil_2: min: 2 is above max, which is 1"},
		"a bound that is no number":   {plant(func(p *Plant) { p.Thresholds[0].Max = &nan }), "threshold of temperature: max: it must be a finite number"},
		"a threshold of nothing":      {plant(func(p *Plant) { p.Thresholds[0].Metric = "" }), "threshold: metric"},
		"two thresholds of a metric":  {plant(func(p *Plant) { p.Thresholds[0].Metric = "soil" }), `plant: thresholds: metric "soil" is there twice`},
		"many thresholds":             {plant(func(p *Plant) { p.Thresholds = make([]Threshold, 65) }), "plant: thresholds: there are 65"},
		"a zone":                      {(&Zone{Kind: Tank, Name: "Nutrients"}).Check(), ""},
		"a zone of no kind":           {(&Zone{Kind: "shed", Name: "Shed"}).Check(), `zone: kind: "shed" is none of`},
		"a zone without a name":       {(&Zone{Kind: Room}).Check(), "zone: name"},
		"an assignment":               {assignment(func(*Assignment) {}), ""},
		"of no device":                {assignment(func(a *Assignment) { a.Device = "" }), "assignment: device"},
		"of no plant":                 {assignment(func(a *Assignment) { a.Plant = "" }), "assignment: plant"},
		"from no time":                {assignment(func(a *Assignment) { a.Since = 0 }), "assignment: since"},
		"that ends when it begins":    {assignment(func(a *Assignment) { a.Until = a.Since }), "assignment: until"},
		"of a metric that is no text": {assignment(func(a *Assignment) { a.Metric = "\xff" }), "assignment: metric"},
		"a note":                      {note(func(*Note) {}), ""},
		"an event without words":      {note(func(n *Note) { n.Kind, n.Text = Watered, "" }), ""},
		"a note without words":        {note(func(n *Note) { n.Text = " \n" }), "note: text: there must be some"},
		"about nothing":               {note(func(n *Note) { n.Plant = "" }), "note: plant"},
		"about two things":            {note(func(n *Note) { n.Zone = "bench" }), "note: plant"},
		"of no kind":                  {note(func(n *Note) { n.Kind = "sung to" }), "note: kind"},
		"of no time":                  {note(func(n *Note) { n.Time = 0 }), "note: time"},
		"with an escape":              {note(func(n *Note) { n.Text = "\x1b[2J" }), "note: text: control characters"},
		"a long note":                 {note(func(n *Note) { n.Text = strings.Repeat("x", 10_001) }), "note: text"},
		"of a long author":            {note(func(n *Note) { n.Author = strings.Repeat("x", 65) }), "note: author"},
		"a registration":              {registration(func(*Registration) {}), ""},
		"without an address":          {registration(func(r *Registration) { r.MAC = "" }), "registration: mac_address"},
		"an address of eight bytes":   {registration(func(r *Registration) { r.MAC = "02:00:5e:10:00:00:00:01" }), "registration: mac_address"},
		"long firmware":               {registration(func(r *Registration) { r.Firmware = strings.Repeat("x", 65) }), "registration: firmware_version"},
		"many sensors":                {registration(func(r *Registration) { r.Sensors = make([]string, 65) }), "registration: sensor_types"},
		"a sensor with a line break":  {registration(func(r *Registration) { r.Sensors[0] = "a\nb" }), "registration: sensor_types"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.says == "" {
				require.NoError(t, c.err)
				return
			}
			require.ErrorContains(t, c.err, c.says)
			assert.ErrorAs(t, c.err, new(*InvalidError))
		})
	}
}

func TestAnAddressIsTheSameHoweverItIsWritten(t *testing.T) {
	for _, written := range []string{"24:6f:28:aa:bb:cc", "24:6F:28:AA:BB:CC", "24-6f-28-aa-bb-cc", "246f28aabbcc", "246f.28aa.bbcc", " 24:6f:28:aa:bb:cc\n"} {
		mac, err := NormalMAC(written)
		require.NoError(t, err, written)
		assert.Equal(t, "24:6F:28:AA:BB:CC", mac)
	}
	for _, written := range []string{"", "aa:bb", "24:6f:28:aa:bb:cg", "246f28aabbcg", "24:6f:28:aa:bb", "246f:28aa:bbcc:ddee"} {
		_, err := NormalMAC(written)
		require.Error(t, err, written)
	}
}
