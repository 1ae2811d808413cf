//go:build linux

package oldapi

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
)

// serve starts the program with a web listener, and returns where that is.
func serve(t *testing.T) (in *program.Installation, base string) {
	t.Helper()
	address := program.FreeAddress(t)
	in = program.Install(t, t.TempDir(), "PLANTOPS_HTTP_ADDRESS="+address)
	in.Start()
	in.AwaitReady()
	return in, "http://" + address
}

// token makes one through the running server.
func token(t *testing.T, in *program.Installation, role string) string {
	t.Helper()
	var made struct{ Token string }
	require.NoError(t, json.Unmarshal(in.Run("token", "add", role, "--role", role, "--json"), &made))
	require.NotEmpty(t, made.Token)
	return made.Token
}

func TestEveryStepOfOldClientsIsRight(t *testing.T) {
	in, base := serve(t)
	run := fmt.Sprintf("%08X", rand.Uint32())
	mac := func(n int) string {
		return fmt.Sprintf("02:0%d:%s:%s:%s:%s", n, run[:2], run[2:4], run[4:6], run[6:])
	}
	p := &player{T: t, base: base, token: token(t, in, "admin"), broker: door.Door{Kind: "tcp", Address: in.TCP},
		saved: map[string]any{"run": run, "mac1": mac(1), "mac2": mac(2)}}
	in.Run("pair", "--for", "10m")
	steps := readSteps(t)
	require.Len(t, steps, 69)
	for i := range steps {
		p.play(&steps[i])
	}
	in.Stop()
}

func TestWhoMayAskWhatThroughTheGate(t *testing.T) {
	in, base := serve(t)
	tokens := map[string]string{"": "", "wrong": "plantops_0123456789ab_" + strings.Repeat("x", 43)}
	for _, role := range []string{"viewer", "operator", "admin"} {
		tokens[role] = token(t, in, role)
	}
	ask := func(who, method, path, body string, headers ...string) (int, string, http.Header) {
		r, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		if tokens[who] != "" {
			r.Header.Set("Authorization", "Bearer "+tokens[who])
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		response, err := http.DefaultTransport.RoundTrip(r)
		require.NoError(t, err)
		defer func() { _ = response.Body.Close() }()
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(text), response.Header
	}
	const mac = `{"mac_address":"02:00:00:00:00:01"}`
	for _, c := range []struct {
		method, path, body string
		want               map[string]int // by who asks
	}{
		{"GET", "/api/health", "", map[string]int{"": 200, "viewer": 200}},
		{"GET", "/api/ready", "", map[string]int{"": 200}},
		{"GET", "/api/devices", "", map[string]int{"": 401, "wrong": 401, "viewer": 200}},
		{"GET", "/api/openapi.json", "", map[string]int{"": 401, "viewer": 200}},
		{"GET", "/api/readings", "", map[string]int{"": 401, "viewer": 200}},
		{"POST", "/api/plants", `{"name":"Basil"}`, map[string]int{"": 401, "viewer": 403, "operator": 201, "admin": 201}},
		{"GET", "/api/accounts", "", map[string]int{"": 401, "viewer": 403, "operator": 403, "admin": 200}},
		{"GET", "/api/tokens", "", map[string]int{"": 401, "viewer": 403, "operator": 403, "admin": 200}},
		{"POST", "/api/devices/register", mac, map[string]int{"": 401, "wrong": 401, "viewer": 403, "operator": 403, "admin": 200}},
		{"DELETE", "/api/devices/none", "", map[string]int{"": 401, "viewer": 403, "operator": 403, "admin": 404}},
	} {
		for who, want := range c.want {
			status, text, headers := ask(who, c.method, c.path, c.body)
			assert.Equal(t, want, status, "%q: %s %s: %s", who, c.method, c.path, text)
			assert.Equal(t, "nosniff", headers.Get("X-Content-Type-Options"))
			if status >= 400 {
				assert.Equal(t, "application/problem+json", headers.Get("Content-Type"))
			}
		}
	}
	status, _, _ := ask("", "POST", "/api/plants", `{"name":"x"}`, "Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site")
	assert.Contains(t, []int{401, 403}, status)
	_, _, headers := ask("viewer", "GET", "/api/devices", "", "Origin", "https://elsewhere.example")
	assert.Empty(t, headers.Get("Access-Control-Allow-Origin"), "no other site reads the answers")
	_, text, _ := ask("admin", "GET", "/api/devices", "")
	var list struct {
		Devices []struct {
			MAC    string `json:"mac_address"`
			Status string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(text), &list))
	require.Len(t, list.Devices, 1)
	assert.Equal(t, "02:00:00:00:00:01", list.Devices[0].MAC)
	assert.Equal(t, "provisioning", list.Devices[0].Status)
	in.Stop()
}
