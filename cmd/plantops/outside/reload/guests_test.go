//go:build linux

package reload_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// guest is an account that comes, changes and goes while others ask whether it may come in.
type guest struct {
	name string
	user bool // else a device

	mu       sync.Mutex
	was      []standing // all that it had; the last one holds
	changing *standing  // what it will be, while an order is on its way
}

// standing is what a guest can be: absent, or there with a secret.
type standing struct {
	secret string // "" when it is absent
	topic  string // of a user: the one topic that it may publish to
}

const unknownSecret = "nobody has been told it yet"

func (g *guest) now() standing {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.was[len(g.was)-1]
}

// question returns a secret to log in with, the right one half of the time, and the moment of asking.
func (g *guest) question(r *rand.Rand) (secret string, asked int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	asked = len(g.was) - 1
	if secret = g.was[asked].secret; r.IntN(2) == 0 {
		secret = g.was[r.IntN(len(g.was))].secret // of some time
	}
	if secret == "" {
		secret = "guessed"
	}
	return secret, asked
}

// since returns all that the guest can have been since the moment of asking: one standing, unless it was changed
// meanwhile.
func (g *guest) since(asked int) []standing {
	g.mu.Lock()
	defer g.mu.Unlock()
	possible := slices.Clone(g.was[asked:])
	if g.changing != nil {
		possible = append(possible, *g.changing)
	}
	return possible
}

// change is an order about g; do returns its new standing, as far as the test does not know it already.
func (g *guest) change(next standing, do func() standing) {
	g.mu.Lock()
	g.changing = &next
	g.mu.Unlock()
	known := do()
	g.mu.Lock()
	g.was, g.changing = append(g.was, known), nil
	g.mu.Unlock()
}

// order asks the running server over its control socket. It returns the answer and whether it was obeyed.
func (u *upheaval) order(path string, body any) (answer map[string]any, ok bool) {
	u.T.Helper()
	text, err := json.Marshal(body)
	require.NoError(u.T, err)
	response, err := u.control.Post("http://plantops"+path, "application/json", bytes.NewReader(text))
	require.NoError(u.T, err)
	defer response.Body.Close()
	require.NoError(u.T, json.NewDecoder(response.Body).Decode(&answer))
	return answer, response.StatusCode == http.StatusOK
}

// changeGuest adds, changes or removes an account. A connection that it had must end, and nobody else's.
func (u *upheaval) changeGuest(verb string) {
	u.T.Helper()
	g := u.guests[u.random.IntN(len(u.guests))]
	before := g.now()
	if verb == "add" && before.secret != "" || verb != "add" && before.secret == "" {
		u.vainOrder(g, verb)
		return
	}
	var affected *door.Intruder
	if before.secret != "" && u.random.IntN(2) == 0 {
		l := rawmqtt.Login{User: g.name, Secret: before.secret, ClientID: g.name + "-holds"}
		affected = u.Enter(u.Doors[u.random.IntN(len(u.Doors))], l)
	}
	next := standing{secret: unknownSecret}
	if verb == "remove" {
		next.secret = ""
	}
	body := map[string]any{"id": g.name}
	kind := "devices"
	if g.user {
		kind = "users"
		if verb == "rotate" {
			verb = "passwd"
		}
		next = u.userStanding(verb, before)
		body = map[string]any{"name": g.name, "password": next.secret, "publish": []string{next.topic}}
	}
	g.change(next, func() standing {
		answer, ok := u.order("/"+kind+"/"+verb, body)
		require.True(u.T, ok, "%s %s: %v", verb, g.name, answer)
		if secret, told := answer["secret"]; told {
			next.secret = secret.(string)
		}
		return next
	})
	if affected != nil {
		assert.True(u.T, affected.Ended(siege.Effective), "%s %s: its session goes on", verb, g.name)
		affected.Close()
	}
}

func (u *upheaval) userStanding(verb string, before standing) standing {
	if verb == "remove" {
		return standing{}
	}
	next := standing{secret: fmt.Sprintf("chosen by a person %d", u.random.Uint64()), topic: before.topic}
	if verb == "add" {
		next.topic = userTopics[u.random.IntN(len(userTopics))]
	}
	return next
}

// vainOrder gives an order that cannot be obeyed: it changes nothing.
func (u *upheaval) vainOrder(g *guest, verb string) {
	u.T.Helper()
	path, body := "/devices/"+verb, map[string]any{"id": g.name}
	if g.user {
		path = map[string]string{"add": "/users/add", "rotate": "/users/passwd", "remove": "/users/remove"}[verb]
		body = map[string]any{"name": g.name, "password": "chosen by a person", "subscribe": []string{"#"}}
	}
	answer, ok := u.order(path, body)
	assert.False(u.T, ok, "%s %s: %v", verb, g.name, answer)
}
