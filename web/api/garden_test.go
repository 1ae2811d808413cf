package api

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/people"
)

func TestPlantsAsTheOldAPIHadThem(t *testing.T) {
	b := open(t)
	bare := b.must(201, people.Operator, "POST", "/api/plants", m{"name": "Basil", "species": nil})
	assert.Nil(t, bare.at("species"))
	assert.Nil(t, bare.at("thresholds"))
	assert.Nil(t, bare.at("position"))
	assert.EqualValues(t, 0, bare.at("device_count"))
	full := b.must(201, people.Operator, "POST", "/api/plants", m{"name": "Monstera", "species": "Monstera deliciosa",
		"thresholds": m{"soil_moisture": m{"min": "30", "max": 70}, "light_level": m{"min": 200}, "metrics": m{"ph": m{"max": 7}}}})
	assert.EqualValues(t, 30, full.at("thresholds.soil_moisture.min"), "a text that is a number is one")
	assert.Contains(t, full.at("thresholds"), "humidity", "all four are there")
	assert.Nil(t, full.at("thresholds.humidity"))
	assert.EqualValues(t, 7, full.at("thresholds.metrics.ph.max"))
	id := full.at("id").(string)
	for _, bad := range []m{{}, {"name": ""}, {"name": nil}, {"name": 7}, {"name": "x", "thresholds": m{"humidity": m{"min": "wet"}}}, {"name": "x", "thresholds": 3},
		{"name": "x", "thresholds": m{"humidity": m{"min": 80, "max": 40}}}, {"name": "x", "thresholds": m{"humidity": m{"min": "NaN"}}},
		{"name": strings.Repeat("x", 300)}, {"name": "a\x00b"}, {"name": "x", "zone_id": "none"}} {
		b.must(422, people.Operator, "POST", "/api/plants", bad)
	}
	changed := b.must(200, people.Operator, "PUT", "/api/plants/"+id, m{"name": "Window"})
	assert.Equal(t, "Monstera deliciosa", changed.at("species"), "what is absent stays")
	changed = b.must(200, people.Operator, "PUT", "/api/plants/"+id, m{"name": nil, "thresholds": m{"soil_moisture": m{"min": 10}}})
	assert.Equal(t, "Window", changed.at("name"))
	assert.Nil(t, changed.at("thresholds.light_level"), "the four are replaced together")
	assert.EqualValues(t, 7, changed.at("thresholds.metrics.ph.max"), "an old client does not know it")
	changed = b.must(200, people.Operator, "PUT", "/api/plants/"+id, m{"thresholds": m{"metrics": m{}}})
	assert.Nil(t, changed.at("thresholds"), "who knows the others clears them")
	b.must(200, people.Operator, "PUT", "/api/plants/"+id, m{})
	b.must(422, people.Operator, "PUT", "/api/plants/"+id+"/position", m{"x": 1})
	assert.EqualValues(t, 2.5, b.must(200, people.Operator, "PUT", "/api/plants/"+id+"/position", m{"x": 1, "y": "2.5"}).at("position.y"))
	list := b.must(200, people.Viewer, "GET", "/api/plants?limit=1", nil)
	assert.EqualValues(t, 2, list.at("total"))
	assert.Len(t, list.at("plants"), 1)
	for _, path := range []string{"/api/plants/none", "/api/plants/none/devices", "/api/plants/none/history", "/api/plants/none/readings"} {
		b.must(404, people.Viewer, "GET", path, nil)
	}
	assert.Empty(t, b.must(204, people.Operator, "DELETE", "/api/plants/"+id, nil).text)
	b.must(404, people.Operator, "DELETE", "/api/plants/"+id, nil)
	b.must(404, people.Viewer, "GET", "/api/plants/"+id, nil)
	b.must(404, people.Operator, "PUT", "/api/plants/"+id, m{"name": "x"})
	b.must(404, people.Viewer, "POST", "/api/plants/"+id+"/health-check", nil)
}

func TestRecordsAreMessagesOfThePlant(t *testing.T) {
	b := open(t)
	device, now := b.device("02:00:00:00:00:01"), time.Now()
	plant := b.plant(m{"name": "Basil"})
	b.must(404, people.Viewer, "GET", "/api/devices/"+device+"/telemetry/latest", nil)
	b.send(device, now.Add(-10*time.Minute), map[string]float64{"temperature": 20, "humidity": 50})
	assert.Nil(t, b.must(200, people.Viewer, "GET", "/api/devices/"+device+"/telemetry/latest", nil).at("plant_id"))
	moved := b.must(200, people.Operator, "POST", "/api/devices/"+device+"/provision", m{"plant_id": plant})
	assert.Equal(t, plant, moved.at("plant_id"))
	for ago, values := range map[time.Duration]map[string]float64{0: {"temperature": 21, "soil_moisture": 30, "ph": 6}, 90 * time.Minute: {"temperature": 19},
		30 * time.Hour: {"temperature": 18}} {
		b.send(device, now.Add(-ago), values)
	}
	history := func(query string) *answer {
		return b.must(200, people.Viewer, "GET", "/api/plants/"+plant+"/history"+query, nil)
	}
	week := history("?hours=168")
	require.EqualValues(t, 3, week.at("count"), "%s", week.text)
	assert.EqualValues(t, 21, week.at("records.0.temperature"))
	assert.Nil(t, week.at("records.1.humidity"))
	assert.Equal(t, plant, week.at("records.2.plant_id"))
	assert.EqualValues(t, 2, history("").at("count"))
	assert.EqualValues(t, 1, history("?hours=1").at("count"))
	for _, hours := range []string{"0", "169", "-1", "day", "1.5", "", "1&hours=2"} {
		b.must(422, people.Viewer, "GET", "/api/plants/"+plant+"/history?hours="+hours, nil)
	}
	latest := b.must(200, people.Viewer, "GET", "/api/devices/"+device+"/telemetry/latest", nil)
	assert.EqualValues(t, 21, latest.at("temperature"), "by its own time")
	assert.Nil(t, latest.at("humidity"), "one message is one record")
	assert.Equal(t, plant, latest.at("plant_id"))
	one := b.must(200, people.Viewer, "GET", "/api/plants/"+plant, nil)
	assert.EqualValues(t, 21, one.at("latest_telemetry.temperature"))
	assert.EqualValues(t, 1, one.at("device_count"))
	assert.EqualValues(t, 21, b.must(200, people.Viewer, "GET", "/api/plants", nil).at("plants.0.latest_telemetry.temperature"))
	assert.Equal(t, device, b.must(200, people.Viewer, "GET", "/api/plants/"+plant+"/devices", nil).at("devices.0.id"))
	assert.Equal(t, "online", b.must(200, people.Viewer, "GET", "/api/devices", nil).at("devices.0.status"))
	b.must(200, people.Operator, "POST", "/api/devices/"+device+"/unassign", nil)
	b.must(200, people.Operator, "POST", "/api/devices/"+device+"/unassign", nil)
	b.must(404, people.Operator, "POST", "/api/devices/none/unassign", nil)
	assert.EqualValues(t, 0, b.must(200, people.Viewer, "GET", "/api/plants/"+plant+"/devices", nil).at("total"))
	assert.EqualValues(t, 2, history("").at("count"), "history stays")
	b.must(404, people.Operator, "POST", "/api/devices/none/provision", m{"plant_id": plant})
	b.must(404, people.Operator, "POST", "/api/devices/"+device+"/provision", m{"plant_id": "none"})
	b.must(422, people.Operator, "POST", "/api/devices/"+device+"/provision", m{})
	b.must(200, people.Admin, "DELETE", "/api/devices/"+device, nil)
	b.must(404, people.Admin, "DELETE", "/api/devices/"+device, nil)
	assert.EqualValues(t, 0, b.must(200, people.Viewer, "GET", "/api/devices", nil).at("total"))
	assert.EqualValues(t, 1, b.must(200, people.Viewer, "GET", "/api/devices?all=true", nil).at("total"), "it has left readings")
	assert.EqualValues(t, 3, history("?hours=168").at("count"), "which stay the plant's")
	b.must(200, people.Admin, "DELETE", "/api/devices/"+device+"?purge=true", nil)
	b.must(404, people.Viewer, "GET", "/api/devices/"+device, nil)
	assert.EqualValues(t, 0, history("?hours=168").at("count"))
}

func TestReadingsAsJSONAndCSV(t *testing.T) {
	b := open(t)
	device := b.device("02:00:00:00:00:01")
	start := time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)
	for i := range 48 {
		b.send(device, start.Add(time.Duration(i)*time.Hour), map[string]float64{"temperature": float64(i), "humidity": 50})
	}
	get := func(query string, headers ...string) *answer {
		a := b.ask(people.Viewer, "GET", "/api/readings?"+query, nil, headers...)
		require.Equal(t, 200, a.StatusCode, "%s: %s", query, a.text)
		return a
	}
	all := "device=" + device + "&from=2026-03-01&to=2026-04-01&metric=temperature"
	assert.Len(t, get(all).json, 48)
	assert.EqualValues(t, 47, get(all).at("47.value"))
	assert.Empty(t, get("device="+device).json, "without a time it is the last day")
	csv := get(all + "&format=csv").text
	assert.True(t, strings.HasPrefix(csv, "time,device,metric,value\n2026-03-28T12:00:00.000Z,"+device+",temperature,0\n"), csv[:100])
	assert.Equal(t, csv, get(all, "Accept", "text/csv").text)
	assert.Contains(t, get(all, "Accept", "text/csv").Header.Get("Content-Type"), "text/csv")
	days := get(all + "&every=1d&agg=min,max,count&tz=Europe/Berlin&format=csv").text
	assert.Equal(t, "time,device,metric,min,max,count\n2026-03-28T00:00:00.000+01:00,"+device+",temperature,0,10,11\n2026-03-29T00:00:00.000+01:00,"+device+
		",temperature,11,33,23\n2026-03-30T00:00:00.000+02:00,"+device+",temperature,34,47,14\n", days, "the day that summer time begins has 23 hours")
	assert.EqualValues(t, 5, get(all+"&every=1d").at("0.value"))
	assert.LessOrEqual(t, len(get(all+"&points=10&agg=sum").json.([]any)), 10)
	assert.Equal(t, "time,device,metric,value\n", get("device="+device+"&from=2026-01-01&to=2026-01-02&metric=a&metric=b&format=csv").text)
	for _, bad := range []string{"from=yesterday", "to=2026-13-01", "from=2026-03-02&to=2026-03-01", "every=0s", "every=1ms", "every=x", "every=1h&points=5", "agg=min",
		"points=0", "points=100001", "points=-1", "every=1h&agg=median", "tz=Mars", "tz=Local", "tz=../../etc/passwd", "format=xml", "raw=perhaps", "zone=z",
		"plant=p&zone=z&every=1h", "from=-1h", "from=" + url.QueryEscape("' OR 1=1 --")} {
		assert.Equal(t, 422, b.ask(people.Viewer, "GET", "/api/readings?"+bad, nil).StatusCode, bad)
	}
	for _, none := range []string{"device=none", "plant=none", "zone=none&every=1h", "device="} {
		assert.Equal(t, 404, b.ask(people.Viewer, "GET", "/api/readings?"+none, nil).StatusCode, none)
	}
}

func TestPlantsAndZonesAreReduced(t *testing.T) {
	b := open(t)
	zone := b.must(201, people.Operator, "POST", "/api/zones", m{"name": "Window", "kind": "bench"}).at("id").(string)
	now := time.Now()
	var plants []string
	for i := range 2 {
		device := b.device(fmt.Sprintf("02:00:00:00:00:0%d", i))
		plant := b.plant(m{"name": "p", "zone_id": zone})
		b.must(200, people.Operator, "POST", "/api/devices/"+device+"/provision", m{"plant_id": plant})
		b.send(device, now, map[string]float64{"temperature": float64(10 + 10*i)})
		plants = append(plants, plant)
	}
	assert.EqualValues(t, 10, b.must(200, people.Viewer, "GET", "/api/plants/"+plants[0]+"/readings?every=1y&metric=temperature", nil).at("0.value"))
	assert.Equal(t, plants[0], b.must(200, people.Viewer, "GET", "/api/plants/"+plants[0]+"/readings?every=1y", nil).at("0.device"))
	assert.EqualValues(t, 15, b.must(200, people.Viewer, "GET", "/api/zones/"+zone+"/readings?every=1y", nil).at("0.value"))
	assert.EqualValues(t, 15, b.must(200, people.Viewer, "GET", "/api/readings?zone="+zone+"&points=1", nil).at("0.value"))
	list := b.must(200, people.Viewer, "GET", "/api/zones", nil)
	assert.ElementsMatch(t, plants, list.at("zones.0.plants"))
	assert.Equal(t, "tank", b.must(200, people.Operator, "PUT", "/api/zones/"+zone, m{"kind": "tank"}).at("kind"))
	b.must(422, people.Operator, "PUT", "/api/zones/"+zone, m{"kind": "castle"})
	b.must(422, people.Operator, "POST", "/api/zones", m{"kind": "room"})
	b.must(204, people.Operator, "DELETE", "/api/zones/"+zone, nil)
	b.must(404, people.Viewer, "GET", "/api/zones/"+zone, nil)
	assert.Nil(t, b.must(200, people.Viewer, "GET", "/api/plants/"+plants[0], nil).at("zone_id"))
}

func TestAssignmentsAndNotes(t *testing.T) {
	b := open(t)
	device, plant := b.device("02:00:00:00:00:01"), b.plant(m{"name": "Basil"})
	a := b.must(201, people.Operator, "POST", "/api/assignments", m{"device_id": device, "plant_id": plant, "metric": "soil_1", "since": "2026-01-01T00:00:00Z"})
	assert.Equal(t, "2026-01-01T00:00:00.000Z", a.at("since"))
	assert.Nil(t, a.at("until"))
	assert.Len(t, b.must(200, people.Viewer, "GET", "/api/assignments?plant="+plant+"&now=true", nil).at("assignments"), 1)
	assert.Equal(t, "soil_1", b.must(200, people.Viewer, "GET", "/api/assignments?device="+device, nil).at("assignments.0.metric"))
	assert.Equal(t, plant, b.must(200, people.Viewer, "GET", "/api/devices", nil).at("devices.0.plant_id"))
	b.must(204, people.Operator, "DELETE", "/api/assignments/"+a.at("id").(string), nil)
	assert.Empty(t, b.must(200, people.Viewer, "GET", "/api/assignments?now=true", nil).at("assignments"))
	b.must(404, people.Operator, "DELETE", "/api/assignments/none", nil)
	b.must(404, people.Operator, "POST", "/api/assignments", m{"device_id": "none", "plant_id": plant})
	b.must(422, people.Operator, "POST", "/api/assignments", m{"device_id": device, "plant_id": plant, "since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"})
	b.must(422, people.Operator, "POST", "/api/assignments", m{"device_id": device, "plant_id": plant, "since": "soon"})

	n := b.must(201, people.Operator, "POST", "/api/notes", m{"plant_id": plant, "kind": "watered"})
	assert.Equal(t, "anna", n.at("author"))
	b.must(201, people.Operator, "POST", "/api/notes", m{"plant_id": plant, "text": "new leaf", "time": "2026-01-01T00:00:00Z"})
	b.must(422, people.Operator, "POST", "/api/notes", m{"plant_id": plant})
	b.must(422, people.Operator, "POST", "/api/notes", m{"text": "of nothing"})
	b.must(404, people.Operator, "POST", "/api/notes", m{"plant_id": "none", "kind": "fed"})
	list := b.must(200, people.Viewer, "GET", "/api/notes?plant="+plant+"&limit=1", nil)
	assert.EqualValues(t, 2, list.at("total"))
	assert.Equal(t, "watered", list.at("notes.0.kind"))
	assert.Len(t, b.must(200, people.Viewer, "GET", "/api/notes?kind=note&to=2026-02-01", nil).at("notes"), 1)
	assert.Empty(t, b.must(200, people.Viewer, "GET", "/api/notes?limit=0", nil).at("notes"))
	b.must(422, people.Viewer, "GET", "/api/notes?kind=odd", nil)
	at := "/api/notes/" + n.at("id").(string)
	assert.Equal(t, "a lot", b.must(200, people.Operator, "PUT", at, m{"text": "a lot"}).at("text"))
	assert.Equal(t, "watered", b.must(200, people.Viewer, "GET", at, nil).at("kind"))
	b.must(204, people.Operator, "DELETE", at, nil)
	b.must(404, people.Viewer, "GET", at, nil)
}

func TestRulesOfTheHealthCheck(t *testing.T) {
	bound := func(v float64) *float64 { return &v }
	p := garden.Plant{ID: "p", Name: "Basil", Thresholds: []garden.Threshold{{Metric: "humidity", Max: bound(60)}, {Metric: "soil_moisture", Min: bound(30)}}}
	of := func(soil, humidity float64) checkup {
		return judge(&p, []history.Reading{{Metric: "humidity", Value: humidity}, {Metric: "soil_moisture", Value: soil}}, nil)
	}
	for _, c := range []struct {
		soil, humidity float64
		status         string
		issues         int
	}{{30, 60, "optimal", 0}, {29, 60, "warning", 1}, {21, 60, "warning", 1}, {20.9, 60, "critical", 1}, {20, 61, "critical", 2}, {29, 61, "warning", 2}, {29, 90, "critical", 2}} {
		got := of(c.soil, c.humidity)
		assert.Equal(t, c.status, got.Status, "%+v", c)
		assert.Len(t, got.Issues, c.issues)
		if c.issues > 0 {
			assert.Equal(t, c.status, got.Issues[0].Severity, "the worst is the first")
		}
	}
	low := of(20, 50)
	assert.Equal(t, advice{"high", "Water it"}, low.Advice[0])
	assert.Equal(t, "soil_moisture is 20.0, below the minimum of 30.0", low.Issues[0].Message)
	assert.Equal(t, "info", of(40, 50).Advice[0].Priority)
	trends := judge(&p, nil, map[string]*course{"temperature": {first: 20, last: 21, min: 19, max: 22}, "humidity": {first: 50, last: 51, min: 50, max: 51},
		"light_level": {first: 0, last: 5, max: 5}}).Trends
	require.Len(t, trends, 3)
	assert.Equal(t, "rising", trends[0].Direction)
	assert.Equal(t, 5.0, trends[0].Change)
	assert.Equal(t, "stable", trends[1].Direction)
	assert.Equal(t, "rising", trends[2].Direction, "from nothing")
}

func TestHealthCheckOfAPlant(t *testing.T) {
	b := open(t)
	device := b.device("02:00:00:00:00:01")
	plant := b.plant(m{"name": "Basil", "thresholds": m{"soil_moisture": m{"min": 30}}})
	check := func() *answer {
		return b.must(200, people.Viewer, "POST", "/api/plants/"+plant+"/health-check", nil)
	}
	assert.Equal(t, "optimal", check().at("status"))
	b.must(200, people.Operator, "POST", "/api/devices/"+device+"/provision", m{"plant_id": plant})
	b.send(device, time.Now().Add(-time.Hour), map[string]float64{"soil_moisture": 40})
	b.send(device, time.Now(), map[string]float64{"soil_moisture": 28})
	got := check()
	assert.Equal(t, "warning", got.at("status"))
	assert.Equal(t, "falling", got.at("trends.0.direction"))
	assert.EqualValues(t, 40, got.at("trends.0.max_24h"))
	assert.Equal(t, false, got.at("has_care_plan"))
	assert.Contains(t, got.json, "care_plan_age_hours")
}

func TestQuarantineIsShownReadAgainAndPurged(t *testing.T) {
	b := open(t)
	device := b.device("02:00:00:00:00:01")
	var batch []store.Message
	for i := range 3 {
		batch = append(batch, store.Message{Kind: store.Bad, Device: device, Topic: "devices/" + device + "/telemetry", Received: time.Now().UnixMilli() + int64(i),
			Payload: []byte{'<', 'b', '>', 0xff, byte('0' + i)}, Reason: "no JSON"})
	}
	_, err := b.store.Append(t.Context(), batch, nil)
	require.NoError(t, err)
	list := b.must(200, people.Viewer, "GET", "/api/quarantine?limit=2", nil)
	assert.Len(t, list.at("entries"), 2)
	assert.Equal(t, "<b>\uFFFD2", list.at("entries.0.payload"), "newest first")
	assert.Equal(t, true, list.at("entries.0.binary"))
	id := fmt.Sprint(list.at("entries.0.id"))
	assert.Equal(t, "no JSON", b.must(200, people.Viewer, "GET", "/api/quarantine/"+id, nil).at("reason"))
	b.must(404, people.Viewer, "GET", "/api/quarantine/999", nil)
	b.must(422, people.Viewer, "GET", "/api/quarantine/x", nil)
	messages := b.must(200, people.Viewer, "GET", "/api/devices/"+device+"/messages", nil)
	assert.Equal(t, "quarantine: no JSON", messages.at("messages.0.why"))
	assert.Equal(t, m{"topic": "devices/" + device + "/telemetry", "time": "2023-11-14T22:13:20.000Z", "payload": "<i>\uFFFD", "binary": true, "size": 900.0}, messages.at("last"))
	assert.EqualValues(t, 1, b.must(200, people.Admin, "POST", "/api/quarantine/replay", m{"ids": []any{list.at("entries.0.id")}}).at("remaining"))
	for _, path := range []string{"/api/quarantine/replay", "/api/quarantine/purge"} {
		for _, bad := range []any{m{}, m{"ids": []int{}}, m{"ids": []int{1}, "all": true}, m{"ids": "all"}, m{"ids": []any{"x"}}} {
			b.must(422, people.Admin, "POST", path, bad)
		}
	}
	assert.EqualValues(t, 1, b.must(200, people.Admin, "POST", "/api/quarantine/purge", m{"ids": []any{list.at("entries.0.id")}}).at("purged"))
	assert.EqualValues(t, 2, b.must(200, people.Admin, "POST", "/api/quarantine/purge", m{"all": true}).at("purged"))
}

func TestCorrections(t *testing.T) {
	b := open(t)
	device := b.device("02:00:00:00:00:01")
	b.send(device, time.Now(), map[string]float64{"soil_moisture": 100, "temperature": 20, "humidity": 50})
	made := b.must(201, people.Admin, "POST", "/api/calibrations", m{"device": device, "metric": "soil_moisture", "from": "2026-01-01T00:00:00Z", "points": [][]float64{{100, 40}}})
	assert.Equal(t, "offset", made.at("kind"))
	read := "/api/readings?metric=soil_moisture&device=" + device
	assert.EqualValues(t, 40, b.must(200, people.Viewer, "GET", read, nil).at("0.value"))
	assert.EqualValues(t, 100, b.must(200, people.Viewer, "GET", read+"&raw=true", nil).at("0.value"))
	for _, bad := range []m{{}, {"device": device, "metric": "x", "points": [][]float64{{1}}}, {"device": device, "metric": "x", "points": [][]float64{{1, 2}, {1, 3}}}, {"device": device, "metric": "x", "points": "no"}} {
		b.must(422, people.Admin, "POST", "/api/calibrations", bad)
	}
	b.must(404, people.Admin, "POST", "/api/calibrations", m{"device": "none", "metric": "x", "points": []any{}})
	v := b.must(201, people.Admin, "POST", "/api/voids", m{"device": device, "from": "2026-01-01T00:00:00Z", "reason": "fell into the pond"})
	assert.Empty(t, b.must(200, people.Viewer, "GET", read, nil).json)
	b.must(422, people.Admin, "POST", "/api/voids", m{"device": device, "from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"})
	b.must(204, people.Admin, "DELETE", fmt.Sprintf("/api/voids/%v", v.at("id")), nil)
	b.must(404, people.Admin, "DELETE", fmt.Sprintf("/api/voids/%v", v.at("id")), nil)
	b.must(201, people.Admin, "POST", "/api/derived", m{"formula": "vpd = vpd(temperature, humidity)"})
	b.must(422, people.Admin, "POST", "/api/derived", m{"formula": "vpd = ="})
	b.must(409, people.Admin, "POST", "/api/derived", m{"formula": "temperature = humidity + 1"})
	all := b.must(200, people.Viewer, "GET", "/api/corrections", nil)
	assert.Equal(t, "vpd", all.at("derived.0.name"))
	assert.Len(t, all.at("calibrations"), 1)
	b.must(204, people.Admin, "DELETE", "/api/derived/vpd", nil)
	b.must(404, people.Admin, "DELETE", "/api/derived/vpd", nil)
}

func TestAccountsAndTokens(t *testing.T) {
	b := open(t)
	b.must(201, people.Admin, "POST", "/api/accounts", m{"name": "anna", "password": "correct horse", "role": "admin"})
	b.must(409, people.Admin, "POST", "/api/accounts", m{"name": "anna", "password": "correct horse"})
	for _, bad := range []m{{}, {"name": "b"}, {"name": "b", "password": "short"}, {"name": "b/c", "password": "correct horse"}, {"name": "b", "password": "correct horse", "role": "king"},
		{"name": "b", "password": "correct horse", "publish": []string{"a/#/b"}}, {"name": "plantops_backend", "password": "correct horse"}} {
		b.must(422, people.Admin, "POST", "/api/accounts", bad)
	}
	list := b.must(200, people.Admin, "GET", "/api/accounts", nil)
	assert.Equal(t, "admin", list.at("accounts.0.role"))
	assert.NotContains(t, list.text, "horse")
	b.must(409, people.Admin, "DELETE", "/api/accounts/anna", nil)
	b.must(409, people.Admin, "PUT", "/api/accounts/anna", m{"role": ""})
	b.must(201, people.Admin, "POST", "/api/accounts", m{"name": "bert", "password": "correct horse", "role": "viewer"})
	b.must(422, people.Admin, "PUT", "/api/accounts/bert", m{"role": "king"})
	b.must(422, people.Admin, "PUT", "/api/accounts/bert", m{"password": "short"})
	assert.Equal(t, "admin", b.must(200, people.Admin, "PUT", "/api/accounts/bert", m{"role": "admin", "password": "another horse"}).at("role"))
	_, right := b.store.Authenticate("bert", []byte("another horse"), store.Wait{})
	assert.True(t, right)
	b.must(204, people.Admin, "DELETE", "/api/accounts/anna", nil)
	b.must(404, people.Admin, "DELETE", "/api/accounts/anna", nil)
	b.must(404, people.Admin, "PUT", "/api/accounts/anna", m{})
	device := b.device("02:00:00:00:00:01")
	b.must(404, people.Admin, "DELETE", "/api/accounts/"+device, nil)
	b.must(404, people.Admin, "PUT", "/api/accounts/"+device, m{"role": "admin"})

	made := b.must(201, people.Admin, "POST", "/api/tokens", m{"name": "script", "role": "viewer"})
	token, known := b.store.People().Verify(t.Context(), made.at("secret").(string))
	assert.True(t, known)
	assert.Equal(t, people.Viewer, token.Role)
	b.must(409, people.Admin, "POST", "/api/tokens", m{"name": "script", "role": "viewer"})
	b.must(422, people.Admin, "POST", "/api/tokens", m{"name": "x", "role": ""})
	assert.NotContains(t, b.must(200, people.Admin, "GET", "/api/tokens", nil).text, made.at("secret"))
	b.must(204, people.Admin, "DELETE", "/api/tokens/script", nil)
	b.must(404, people.Admin, "DELETE", "/api/tokens/script", nil)
	_, known = b.store.People().Verify(t.Context(), made.at("secret").(string))
	assert.False(t, known)
}
