package history_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/history"
)

// What is read from a file is judged as what was written there.
func TestAHistoryIsReadAsItWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	m := history.Message{From: history.WillOf("a"), Number: 12}
	h := events{
		{Kind: history.Connecting, Client: "a", Resume: true, Will: &history.Will{Topic: "will/a", Delay: 1500 * time.Millisecond}},
		{Kind: history.Connecting, Client: "b"},
		{Kind: history.Connected, Client: "a", Present: true},
		{Kind: history.Subscribing, Client: "a", Filter: "$share/g/+/#", QoS: 2},
		{Kind: history.Subscribed, Client: "a", Filter: "$share/g/+/#", QoS: 128},
		{Kind: history.Unsubscribing, Client: "a", Filter: "$share/g/+/#"},
		{Kind: history.Sending, Client: "b", Message: m, Topic: "t/1", QoS: 2, ID: 65535, Again: true, Retain: true, Empty: true},
		{Kind: history.Got, Client: "a", Message: m, Topic: "t/1", QoS: 1, ID: 1, Held: true},
		{Kind: history.Taken, Client: "b", Message: m, ID: 65535}, {Kind: history.Completed, Client: "b", Message: m},
		{Kind: history.Refused, Client: "b", Message: m}, {Kind: history.Answered, Client: "a", Message: m, ID: 1},
		{Kind: history.Parted, Client: "a"}, {Kind: history.Dropped, Client: "b"}, {Kind: history.Replaced, Client: "b"},
		{Kind: history.Kept, Client: "c", Topic: "t/1", Message: m}, {Kind: history.Killed}, {Kind: history.Ended},
	}
	for i := range h {
		h[i].At = time.Duration(i) * 1001 * time.Millisecond
	}
	require.NoError(t, history.Write(path, h))
	read, err := history.Read(path)
	require.NoError(t, err)
	assert.Equal(t, h, read)

	for _, broken := range []string{"nothing\n", "0 0.001 a Connected\n", "0 0.001 a Got p on t QoS 1 id=1\n", "0 0.001 a Got p:1 at t QoS 1 id=1\n", "0 0.001 a Parted"} {
		require.NoError(t, os.WriteFile(path, []byte(broken), 0o600))
		_, err := history.Read(path)
		assert.ErrorContains(t, err, path, broken)
	}
}
