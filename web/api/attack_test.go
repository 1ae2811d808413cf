package api

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/people"
)

func TestStoredHTMLIsDataEverywhere(t *testing.T) {
	b := open(t)
	const script = `<script>alert(1)</script>`
	plant := b.plant(m{"name": script, "species": script})
	b.must(201, people.Operator, "POST", "/api/zones", m{"name": script})
	b.must(201, people.Operator, "POST", "/api/notes", m{"plant_id": plant, "text": script})
	b.must(200, people.Admin, "POST", "/api/devices/register", m{"mac_address": "02:00:00:00:00:01", "firmware_version": script, "sensor_types": []string{script}})
	b.must(201, people.Admin, "POST", "/api/devices", m{"device_id": `<b onmouseover=alert(1)>`})
	b.send(`<b onmouseover=alert(1)>`, time.Now(), map[string]float64{script: 1})
	for _, path := range []string{"/api/plants", "/api/plants/" + plant, "/api/zones", "/api/notes", "/api/devices", "/api/devices/" + url.PathEscape(`<b onmouseover=alert(1)>`),
		"/api/readings?device=" + url.QueryEscape(`<b onmouseover=alert(1)>`)} {
		a := b.ask(people.Viewer, "GET", path, nil, "Accept", "text/html")
		assert.Equal(t, 200, a.StatusCode, path)
		assert.Equal(t, "application/json", a.Header.Get("Content-Type"), path)
		assert.NotContains(t, a.text, "<", "%s: not even a browser that guesses sees a tag", path)
	}
	csv := b.ask(people.Viewer, "GET", "/api/readings?format=csv&metric="+url.QueryEscape(script), nil)
	assert.True(t, strings.HasPrefix(csv.Header.Get("Content-Type"), "text/csv"))
	for _, path := range []string{"/api/plants/" + url.PathEscape(script), "/api/devices/" + url.PathEscape(script), "/api/" + url.PathEscape(script),
		"/api/readings?every=" + url.QueryEscape(script), "/api/plants?limit=" + url.QueryEscape(script)} {
		a := b.ask(people.Viewer, "GET", path, nil, "Accept", "text/html")
		assert.GreaterOrEqual(t, a.StatusCode, 400)
		assert.NotContains(t, a.text, "<script", path)
	}
	assert.NotContains(t, b.must(200, people.Viewer, "GET", "/api/docs", nil).text, "<script")
}

func TestLimitsOutOfRange(t *testing.T) {
	b := open(t)
	for _, path := range []string{"/api/devices", "/api/plants", "/api/notes", "/api/quarantine"} {
		for _, bad := range []string{"limit=-1", "limit=many", "limit=1.5", "limit=1e3", "limit=", "limit=99999999999999999999", "limit=1&limit=2", "offset=-1"} {
			if path == "/api/quarantine" && strings.HasPrefix(bad, "offset") {
				continue
			}
			assert.Equal(t, 422, b.ask(people.Viewer, "GET", path+"?"+bad, nil).StatusCode, "%s?%s", path, bad)
		}
	}
	assert.Empty(t, b.must(200, people.Viewer, "GET", "/api/devices?offset=1000000000&limit=1000000", nil).at("devices"))
	assert.Empty(t, b.must(200, people.Viewer, "GET", "/api/plants?limit=0", nil).at("plants"))
}

func TestBodiesThatAreTooMuch(t *testing.T) {
	b := open(t)
	b.must(413, people.Operator, "POST", "/api/plants", `{"name":"`+strings.Repeat("x", maxBody)+`"}`)
	b.must(413, people.Admin, "POST", "/api/devices/register", strings.Repeat(" ", maxBody+1))
	b.must(422, people.Operator, "POST", "/api/plants", `{"name":"x","a":`+strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)+`}`)
	b.must(422, people.Operator, "POST", "/api/plants", `{"name":"x"} {"name":"y"}`)
	b.must(422, people.Operator, "POST", "/api/plants", "")
	many := make([]string, 5000)
	b.must(422, people.Admin, "POST", "/api/devices/register", m{"mac_address": "02:00:00:00:00:01", "sensor_types": many})
	var faults []any
	for range 1500 {
		faults = append(faults, "x")
	}
	a := b.must(422, people.Admin, "POST", "/api/quarantine/purge", m{"ids": faults})
	assert.Less(t, len(a.text), 5000, "not each fault is told")
	assert.Equal(t, 415, b.ask(people.Operator, "POST", "/api/plants", `{"name":"x"}`, "Content-Type", "text/plain").StatusCode, "which a form of another site could send")
	assert.Equal(t, 415, b.ask(people.Operator, "POST", "/api/plants", `name=x`, "Content-Type", "application/x-www-form-urlencoded").StatusCode)
	assert.Equal(t, 201, b.ask(people.Operator, "POST", "/api/plants", `{"name":"x"}`, "Content-Type", "application/json; charset=utf-8").StatusCode)
}

func TestNobodyIsReadABody(t *testing.T) {
	b := open(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = fmt.Fprintf(conn, "POST /api/plants HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nContent-Type: application/json\r\n\r\n{")
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	assert.Equal(t, 401, response.StatusCode, "before the body has come")
}

func TestTextThatWouldBeSQL(t *testing.T) {
	b := open(t)
	device, plant := b.device("02:00:00:00:00:01"), b.plant(m{"name": "Robert'); DROP TABLE plant;--"})
	b.send(device, time.Now(), map[string]float64{"temperature": 1})
	for _, evil := range []string{"' OR '1'='1", "1; DROP TABLE device", "%", "_", "\x00", "\xff\xfe", "../../etc/passwd", "..", strings.Repeat("a", 5000), "🌱"} {
		at, q := url.PathEscape(evil), url.QueryEscape(evil)
		for _, path := range []string{"/api/plants/" + at + "/x", "/api/plants/" + at + "/history", "/api/plants/" + at + "/readings", "/api/devices/" + at + "/telemetry/latest",
			"/api/zones/" + at + "/readings?every=1h", "/api/notes/" + at + "?", "/api/readings?device=" + q, "/api/readings?plant=" + q, "/api/readings?zone=" + q + "&every=1h"} {
			a := b.ask(people.Viewer, "GET", path, nil)
			assert.Contains(t, []int{301, 307, 404}, a.StatusCode, "%q %q", evil, path)
		}
		for _, path := range []string{"/api/readings?metric=" + q, "/api/assignments?device=" + q, "/api/assignments?plant=" + q, "/api/notes?plant=" + q} {
			a := b.must(200, people.Viewer, "GET", path, nil)
			for _, key := range []string{"assignments", "notes"} {
				if a.at(key) != nil {
					assert.Empty(t, a.at(key), path)
				}
			}
		}
		b.must(404, people.Admin, "DELETE", "/api/tokens/x"+at, nil)
		b.must(404, people.Admin, "DELETE", "/api/accounts/x"+at, nil)
		b.must(404, people.Operator, "POST", "/api/devices/"+device+"/provision", m{"plant_id": "x" + strings.ToValidUTF8(evil, "?")})
	}
	assert.Equal(t, "Robert'); DROP TABLE plant;--", b.must(200, people.Viewer, "GET", "/api/plants/"+plant, nil).at("name"))
	assert.EqualValues(t, 1, b.must(200, people.Viewer, "GET", "/api/devices", nil).at("total"))
}

// A viewer who knows every id changes nothing.
func TestAViewerChangesNothing(t *testing.T) {
	b := open(t)
	device, plant := b.device("02:00:00:00:00:01"), b.plant(m{"name": "Basil"})
	note := b.must(201, people.Operator, "POST", "/api/notes", m{"plant_id": plant, "kind": "fed"}).at("id").(string)
	before := b.must(200, people.Viewer, "GET", "/api/plants", nil).text + b.must(200, people.Viewer, "GET", "/api/devices", nil).text
	for _, ask := range []struct {
		method, path string
		body         any
	}{{"PUT", "/api/plants/" + plant, m{"name": "Mine"}}, {"PUT", "/api/plants/" + plant + "/position", m{"x": 1, "y": 1}}, {"DELETE", "/api/plants/" + plant, nil},
		{"DELETE", "/api/devices/" + device, nil}, {"DELETE", "/api/devices/" + device + "?purge=true", nil}, {"POST", "/api/devices/" + device + "/rotate", nil},
		{"POST", "/api/devices/" + device + "/provision", m{"plant_id": plant}}, {"DELETE", "/api/notes/" + note, nil}, {"PUT", "/api/notes/" + note, m{"text": "x"}},
		{"POST", "/api/devices/register", m{"mac_address": "02:00:00:00:00:01"}}, {"POST", "/api/accounts", m{"name": "mallory", "password": "correct horse", "role": "admin"}},
		{"POST", "/api/tokens", m{"name": "mallory", "role": "admin"}}, {"POST", "/api/quarantine/purge", m{"all": true}}} {
		assert.Equal(t, 403, b.ask(people.Viewer, ask.method, ask.path, ask.body).StatusCode, ask.path)
	}
	for _, path := range []string{"/api/accounts", "/api/tokens", "/api//accounts", "/api/./accounts", "/api/plants/../accounts", "/api/accounts/"} {
		a := b.ask(people.Viewer, "GET", path, nil)
		assert.Contains(t, []int{301, 307, 403}, a.StatusCode, path)
	}
	assert.Equal(t, before, b.must(200, people.Viewer, "GET", "/api/plants", nil).text+b.must(200, people.Viewer, "GET", "/api/devices", nil).text)
}
