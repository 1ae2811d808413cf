package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/people"
	"github.com/plantops/plantops/store/storetest"
)

// box is an API with a real store, and a server that has no broker.
type box struct {
	*testing.T
	store   *store.Store
	server  *fakeServer
	api     *API
	url     string
	pairing atomic.Bool
}

// fakeServer is a server whose broker is told of devices all the same.
type fakeServer struct {
	*control.Server
	store          *store.Store
	database, mqtt error
}

func (f *fakeServer) RegisterDevice(ctx context.Context, r garden.Registration) (string, string, error) {
	return f.store.RegisterDevice(ctx, r)
}
func (f *fakeServer) LastMessage(device string) (control.LastMessage, bool) {
	return control.LastMessage{Topic: "devices/" + device + "/telemetry", Payload: []byte("<i>\xff"), Size: 900, Received: 1_700_000_000_000}, true
}
func (f *fakeServer) Parts(context.Context) (database, mqtt error) { return f.database, f.mqtt }

const offlineAfter = 3 * time.Minute

// open starts the API. Who asks is what the header Role says.
func open(t *testing.T) *box {
	b := &box{T: t, store: storetest.Open(t)}
	b.server = &fakeServer{Server: control.New(control.Options{Store: b.store, BackendUsername: "plantops_backend", OfflineAfter: offlineAfter, Version: "test",
		Listeners: control.Contact{TLS: "0.0.0.0:8883"}}), store: b.store}
	b.api = New(Options{Store: b.store, Server: b.server, Version: "test", Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Who: func(ctx context.Context) (string, people.Role, bool) {
			r, ok := ctx.Value(roleKey{}).(people.Role)
			return "anna", r, ok
		},
		Pairing: b.pairing.Load})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if role := r.Header.Get("Role"); role != "" {
			r = r.WithContext(context.WithValue(r.Context(), roleKey{}, people.Role(role)))
		}
		b.api.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

type roleKey struct{}

// answer is what was answered.
type answer struct {
	*http.Response
	text string
	json any
}

// at is what stands at a path of the answer, with dots between.
func (a *answer) at(path string) any {
	value := a.json
	for key := range strings.SplitSeq(path, ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[key]
		case []any:
			n, err := json.Number(key).Int64()
			if err != nil || int(n) >= len(v) {
				return nil
			}
			value = v[n]
		default:
			return nil
		}
	}
	return value
}

// ask asks as somebody; "" is nobody. A body that is a text is sent as it is.
func (b *box) ask(role people.Role, method, path string, body any, headers ...string) *answer {
	b.Helper()
	var reader io.Reader
	switch v := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(v)
	default:
		text, err := json.Marshal(v)
		require.NoError(b, err)
		reader = strings.NewReader(string(text))
	}
	r, err := http.NewRequestWithContext(b.Context(), method, b.url+path, reader)
	require.NoError(b, err)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if role != "" {
		r.Header.Set("Role", string(role))
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(r)
	require.NoError(b, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(b, err)
	a := &answer{Response: response, text: string(text)}
	if strings.Contains(response.Header.Get("Content-Type"), "json") {
		require.NoError(b, json.Unmarshal(text, &a.json), "%s", text)
	}
	assert.Equal(b, "nosniff", response.Header.Get("X-Content-Type-Options"))
	assert.NotEmpty(b, response.Header.Get(correlationHeader))
	if response.StatusCode >= 400 && method != http.MethodHead && !isReadiness(a) {
		assert.Equal(b, "application/problem+json", response.Header.Get("Content-Type"), "%s", text)
		assert.NotEmpty(b, a.at("detail"), "%s", text)
		assert.IsType(b, "", a.at("detail"))
		assert.EqualValues(b, response.StatusCode, a.at("status"))
	}
	return a
}

func isReadiness(a *answer) bool { return a.at("ready") == false }

// must is ask with the status that is expected.
func (b *box) must(status int, role people.Role, method, path string, body any) *answer {
	b.Helper()
	a := b.ask(role, method, path, body)
	require.Equal(b, status, a.StatusCode, "%s %s: %s", method, path, a.text)
	return a
}

// m is an object.
type m = map[string]any

// send stores a message of a device.
func (b *box) send(device string, at time.Time, values map[string]float64) {
	b.Helper()
	message := store.Message{Kind: store.Telemetry, Device: device, Topic: "devices/" + device + "/telemetry", Time: at.UnixMilli(), Received: time.Now().UnixMilli()}
	for metric, v := range values {
		message.Values = append(message.Values, store.Value{Metric: metric, Value: v})
	}
	_, err := b.store.Append(b.Context(), []store.Message{message}, nil)
	require.NoError(b, err)
}

// device registers one, and returns its id.
func (b *box) device(mac string) string {
	b.Helper()
	a := b.must(200, people.Admin, "POST", "/api/devices/register", m{"mac_address": mac})
	return a.at("device_id").(string)
}

func (b *box) plant(body m) string {
	b.Helper()
	return b.must(201, people.Operator, "POST", "/api/plants", body).at("id").(string)
}

func TestNobodyPassesWithoutARole(t *testing.T) {
	b := open(t)
	spec := b.must(200, people.Viewer, "GET", "/api/openapi.json", nil)
	free := map[string]bool{"GET /api/health": true, "GET /api/ready": true, "POST /api/devices/register": true, "GET /api/docs/style.css": true}
	asked := 0
	for path, item := range spec.at("paths").(m) {
		for method, op := range item.(m) {
			name := strings.ToUpper(method) + " " + path
			concrete := strings.NewReplacer("{id}", "1", "{name}", "x").Replace(path)
			var body any
			if op.(m)["requestBody"] != nil {
				body = m{}
			}
			a := b.ask("", strings.ToUpper(method), concrete, body)
			if free[name] {
				assert.NotEqual(t, 403, a.StatusCode, name)
				continue
			}
			assert.Equal(t, 401, a.StatusCode, name)
			assert.Contains(t, a.Header.Get("WWW-Authenticate"), "Bearer")
			asked++
			needs := op.(m)["description"].(string)
			switch {
			case strings.HasSuffix(needs, "Role: admin."):
				assert.Equal(t, 403, b.ask(people.Operator, strings.ToUpper(method), concrete, body).StatusCode, name)
				fallthrough
			case strings.HasSuffix(needs, "Role: operator."):
				assert.Equal(t, 403, b.ask(people.Viewer, strings.ToUpper(method), concrete, body).StatusCode, name)
			default:
				require.True(t, strings.HasSuffix(needs, "Role: viewer."), "%s: %s", name, needs)
				assert.Contains(t, []string{"get", "post"}, strings.Replace(method, "put", "get", 1)) // health check, what is not here
			}
		}
	}
	assert.Greater(t, asked, 50)
	for _, path := range []string{"/api/accounts", "/api/tokens"} {
		assert.Equal(t, 403, b.ask(people.Viewer, "GET", path, nil).StatusCode)
		assert.Equal(t, 403, b.ask(people.Operator, "GET", path, nil).StatusCode)
	}
}

func TestHealthAndReadinessFollowTheTwoParts(t *testing.T) {
	b := open(t)
	for _, c := range []struct {
		database, mqtt error
		word           string
		status         int
	}{{nil, nil, "healthy", 200}, {errors.New("disk"), nil, "degraded", 503}, {nil, errors.New("away"), "degraded", 503}, {errors.New("disk"), errors.New("away"), "unhealthy", 503}} {
		b.server.database, b.server.mqtt = c.database, c.mqtt
		a := b.must(200, "", "GET", "/api/health", nil)
		assert.Equal(t, c.word, a.at("status"))
		assert.Equal(t, "test", a.at("version"))
		assert.Equal(t, c.database == nil, a.at("components.database.status") == "connected")
		assert.Equal(t, c.mqtt == nil, a.at("components.mqtt.message") == nil)
		assert.NotContains(t, a.text, "disk", "strangers are not told why")
		ready := b.must(c.status, "", "GET", "/api/ready", nil)
		assert.Equal(t, c.status == 200, ready.at("ready"))
		assert.Equal(t, c.database == nil, ready.at("checks.database"))
	}
}

func TestRegisterOnlyInTheWindowOrAsAdmin(t *testing.T) {
	b := open(t)
	mac := m{"mac_address": "aa:bb:cc:dd:ee:01", "firmware_version": "1.0.0", "unknown": 1}
	b.must(401, "", "POST", "/api/devices/register", mac)
	b.must(403, people.Operator, "POST", "/api/devices/register", mac)
	assert.EqualValues(t, 0, b.must(200, people.Viewer, "GET", "/api/devices", nil).at("total"), "nothing has changed")
	b.pairing.Store(true)
	first := b.must(200, "", "POST", "/api/devices/register", mac)
	id, password := first.at("device_id").(string), first.at("mqtt_password").(string)
	assert.Equal(t, id, first.at("mqtt_username"))
	assert.EqualValues(t, 8883, first.at("mqtt_port"))
	assert.Equal(t, "127.0.0.1", first.at("mqtt_host"))
	right := func(password string) bool {
		_, ok := b.store.Authenticate(id, []byte(password), store.Wait{})
		return ok
	}
	assert.True(t, right(password))
	again := b.must(200, "", "POST", "/api/devices/register", m{"mac_address": "AABBCCDDEE01"})
	assert.Equal(t, id, again.at("device_id"), "written in another way it is the same address")
	assert.False(t, right(password), "the old secret is dead")
	assert.True(t, right(again.at("mqtt_password").(string)))
	b.pairing.Store(false)
	b.must(401, "", "POST", "/api/devices/register", mac)
	assert.True(t, right(again.at("mqtt_password").(string)), "outside of the window nothing changes")
	for _, body := range []any{m{}, m{"mac_address": ""}, m{"mac_address": "no"}, m{"mac_address": nil}, m{"mac_address": 7}, `{"mac_address": `, ``, `[]`, `null`} {
		b.must(422, people.Admin, "POST", "/api/devices/register", body)
	}
	list := b.must(200, people.Viewer, "GET", "/api/devices", nil)
	assert.Equal(t, "AA:BB:CC:DD:EE:01", list.at("devices.0.mac_address"))
	assert.Equal(t, "1.0.0", list.at("devices.0.firmware_version"), "what it does not tell again it has told")
	assert.NotContains(t, list.text, "password")
}

func TestPathsThatThereAreNot(t *testing.T) {
	b := open(t)
	b.must(404, people.Admin, "GET", "/api/nothing", nil)
	b.must(404, people.Admin, "GET", "/api/", nil)
	a := b.must(405, people.Admin, "PATCH", "/api/plants", nil)
	assert.Contains(t, a.Header.Get("Allow"), "POST")
	slash := b.must(307, people.Admin, "GET", "/api/plants/?limit=1", nil)
	assert.Equal(t, "../plants?limit=1", slash.Header.Get("Location"))
	for _, ask := range []string{"GET /api/plants/x/care-plan", "POST /api/plants/x/analyze", "GET /api/settings/llm", "PUT /api/settings/llm", "POST /api/settings/llm/test"} {
		method, path, _ := strings.Cut(ask, " ")
		assert.Contains(t, b.must(404, people.Viewer, method, path, nil).at("detail"), "language model")
	}
}

func TestCorrelationIsEchoedOrMade(t *testing.T) {
	b := open(t)
	assert.Equal(t, "abc-1", b.ask("", "GET", "/api/health", nil, correlationHeader, "abc-1").Header.Get(correlationHeader))
	for _, bad := range []string{"a b", strings.Repeat("x", 200), "é"} {
		made := b.ask("", "GET", "/api/health", nil, correlationHeader, bad).Header.Get(correlationHeader)
		assert.NotEqual(t, bad, made)
	}
}

func TestTheDescriptionIsWhole(t *testing.T) {
	b := open(t)
	a := b.must(200, people.Viewer, "GET", "/api/openapi.json", nil)
	whole, err := json.Marshal(b.api.routes().huma.OpenAPI())
	require.NoError(t, err)
	assert.JSONEq(t, string(whole), a.text)
	page := b.must(200, people.Viewer, "GET", "/api/docs", nil)
	assert.Equal(t, "text/html; charset=utf-8", page.Header.Get("Content-Type"))
	for path := range a.at("paths").(m) {
		assert.Contains(t, page.text, "<code>"+path+"</code>")
	}
	for _, foreign := range []string{"http://", "https://", "<script", "style="} {
		assert.NotContains(t, page.text, foreign, "the page needs nothing from elsewhere")
	}
	var references func(any)
	references = func(v any) {
		switch v := v.(type) {
		case m:
			if ref, is := v["$ref"].(string); is {
				name, ours := strings.CutPrefix(ref, "#/components/schemas/")
				assert.True(t, ours && a.at("components.schemas").(m)[name] != nil, ref)
			}
			for _, one := range v {
				references(one)
			}
		case []any:
			for _, one := range v {
				references(one)
			}
		}
	}
	references(a.json)
	assert.Contains(t, b.must(200, "", "GET", "/api/docs/style.css", nil).Header.Get("Content-Type"), "text/css")
}
