//go:build linux

package program

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/certs/certstest"
	"github.com/plantops/plantops/store"
)

// Run runs another plantops command and returns its standard output; the command must succeed.
func (in *Installation) Run(args ...string) []byte {
	in.T.Helper()
	cmd := exec.Command(in.Program, args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stderr = filepath.Dir(in.Dir), in.Env, &stderr
	out, err := cmd.Output()
	require.NoError(in.T, err, "plantops %s: %s", strings.Join(args, " "), &stderr)
	return out
}

// MessageCounts is the equation as the status command prints it.
type MessageCounts struct {
	Received, Stored, Duplicate, Quarantined, Refused, Pending, Difference int64
}

// Counts asks the running server; that it is healthy is part of the answer.
func (in *Installation) Counts() MessageCounts {
	in.T.Helper()
	var status struct{ Messages MessageCounts }
	require.NoError(in.T, json.Unmarshal(in.Run("status", "--json"), &status))
	return status.Messages
}

// Reached tells whether so many messages are stored and the server is well.
func (in *Installation) Reached(count int64) bool {
	var status struct{ Messages MessageCounts }
	show := exec.Command(in.Program, "status", "--json")
	show.Env = in.Env
	out, err := show.Output() // fails while the subscriber is away
	return err == nil && json.Unmarshal(out, &status) == nil && status.Messages.Stored >= count && status.Messages.Pending == 0
}

// Add makes accounts for devices through the running server and returns their secrets.
func (in *Installation) Add(ids ...string) map[string]string {
	in.T.Helper()
	secrets := make(map[string]string, len(ids))
	for _, id := range ids {
		var given struct {
			Secret string `json:"mqtt_password"`
		}
		require.NoError(in.T, json.Unmarshal(in.Run("device", "add", id, "--json"), &given))
		secrets[id] = given.Secret
	}
	return secrets
}

// Register makes accounts for devices while no server runs and returns their secrets.
func (in *Installation) Register(ids ...string) map[string]string {
	in.T.Helper()
	db, err := store.Open(in.T.Context(), store.Options{Path: in.Database()})
	require.NoError(in.T, err)
	secrets := make(map[string]string, len(ids))
	for _, id := range ids {
		secrets[id], err = db.AddDevice(in.T.Context(), id)
		require.NoError(in.T, err)
	}
	require.NoError(in.T, db.Close())
	return secrets
}

// ClientTLS trusts the authority that the server has made.
func (in *Installation) ClientTLS() *tls.Config {
	in.T.Helper()
	pem, err := os.ReadFile(filepath.Join(in.Dir, "certs", "ca.crt"))
	require.NoError(in.T, err)
	return &tls.Config{RootCAs: certstest.Trust(in.T, string(pem)).Roots(), ServerName: "localhost"}
}
