package control

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/storetest"
)

const fuzzPassword = "geheim geheim"

// Every body that an order over the control socket can have gets an answer in JSON; what it lets in can be found and
// taken away again, and no answer repeats the password.
func FuzzControl(f *testing.F) {
	paths := []string{"/devices/add", "/devices/rotate", "/devices/remove", "/users/add", "/users/passwd", "/users/remove",
		"/certificates/reload", "/quarantine/replay", "/quarantine/purge", "/history/import", "/history/place"}
	for order := range paths {
		f.Add(byte(order), []byte(`{"id":"bed-1","name":"anna","publish":["devices/#"],"subscribe":["home/%u/+"],"admin":true,"ids":[1,-9223372036854775808]}`))
		f.Add(byte(order), []byte(`{"name":"a/b","password":"`+fuzzPassword+`","subscribe":["a#"]}`))
		f.Add(byte(order), []byte(`{"name":"anna","hash":"$7$101$AAAA$AAAA","id":"..\u0000","ids":[1e400]}`))
		f.Add(byte(order), []byte(`{"ids":{}}{"id":7}`))
		f.Add(byte(order), []byte(`{"devices":["bed-1"],"metrics":["ph"],"device":[0],"time":[1],"count":[1],"metric":[0],"value":[6],"place":{"key":"a"}}`))
		f.Add(byte(order), []byte(`{"devices":["bed-1"],"metrics":[],"device":[0],"time":[1],"count":[-1],"metric":[7],"value":[6]}`))
		f.Add(byte(order), []byte(nil))
	}
	s := New(Options{Store: storetest.Open(f), BackendUsername: "plantops_backend"})
	orders := handler(s)
	f.Fuzz(func(t *testing.T, order byte, body []byte) {
		path := paths[int(order)%len(paths)]
		w := httptest.NewRecorder()
		orders.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)))
		require.True(t, json.Valid(w.Body.Bytes()), "%s", w.Body)

		var device deviceRequest
		var user userRequest
		_ = json.Unmarshal(firstValue(body), &device) // what the order does not understand, it must not have obeyed
		_ = json.Unmarshal(firstValue(body), &user)
		if user.Password == fuzzPassword {
			require.NotContains(t, w.Body.String(), fuzzPassword)
		}
		switch {
		case w.Code != http.StatusOK:
			require.Equal(t, http.StatusUnprocessableEntity, w.Code)
			var failed socketError
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &failed))
			require.NotEmpty(t, failed.Text)
		case path == "/devices/add":
			_, found := s.store.Account(device.ID)
			require.True(t, found, "%q", device.ID)
			require.NoError(t, s.RemoveDevice(context.Background(), device.ID))
		case path == "/users/add":
			_, found := s.store.Account(user.Name)
			require.True(t, found, "%q", user.Name)
			require.NoError(t, s.RemoveUser(context.Background(), user.Name))
		}
	})
}

// firstValue is the JSON value that body begins with; what follows it is nobody's.
func firstValue(body []byte) (value json.RawMessage) {
	_ = json.NewDecoder(bytes.NewReader(body)).Decode(&value)
	return value
}
