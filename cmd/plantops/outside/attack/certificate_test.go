//go:build linux

package attack_test

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/certs/certstest"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// Classes V15 and V12 for certificates: a revoked one is refused, and what was connected with it is ended, at once.

// badges gives devices certificates and shows them at the TLS door.
type badges struct {
	*siege.Siege
	out string
}

func (b badges) issue(name string) tls.Certificate {
	b.T.Helper()
	dir, err := os.MkdirTemp(b.out, "")
	require.NoError(b.T, err)
	b.In.Run("certs", "issue", name, "--out", dir)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	require.NoError(b.T, err)
	return pair
}

func (b badges) door(certificates ...tls.Certificate) door.Door {
	d := b.Doors[1]
	d.TLS = d.TLS.Clone()
	d.TLS.Certificates = certificates
	return d
}

// refusedCount is how often the server has refused something for a reason.
func (b badges) refusedCount(reason string) int64 {
	b.T.Helper()
	var status struct {
		Connections struct {
			Refused map[string]int64 `json:"refused"`
		} `json:"connections"`
	}
	require.NoError(b.T, json.Unmarshal(b.In.Run("status", "--json"), &status))
	return status.Connections.Refused[reason]
}

// refusedTo is the same for one device, as its owner sees it.
func (b badges) refusedTo(id, reason string) (count int64) {
	b.T.Helper()
	var device struct {
		Refusals []struct {
			Reason string
			Count  int64
		}
	}
	require.NoError(b.T, json.Unmarshal(b.In.Run("device", "show", id, "--json"), &device))
	for _, r := range device.Refusals {
		if r.Reason == reason {
			count = r.Count
		}
	}
	return count
}

func TestV15RevokedCertificateOpensNothing(t *testing.T) {
	g := badges{siege.Begin(t, "PLANTOPS_LISTENERS_TLS_REQUIRE_CERTIFICATE=true"), t.TempDir()}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		lost, kept := g.issue("bed-1"), g.issue("bed-2")
		d := g.door(lost)
		d.TLS.MinVersion, d.TLS.MaxVersion = version, version
		d.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		g.Enter(d, g.As("bed-1"))
		resumed := g.Enter(d, g.As("bed-1"))
		require.True(t, resumed.Conn.(*tls.Conn).ConnectionState().DidResume, "%s: it has a ticket", tls.VersionName(version))
		waiting, err := d.Open(t, "") // through the handshake, before the login
		require.NoError(t, err)
		require.NoError(t, waiting.Conn.(*tls.Conn).Handshake())

		g.In.Run("certs", "revoke", "bed-1")
		assert.True(t, resumed.Ended(siege.Effective), "%s: a resumed connection goes on", tls.VersionName(version))
		waiting.Send(g.As("bed-1").Encode())
		answer, err := waiting.Await(rawmqtt.Connack)
		assert.False(t, err == nil && answer[1] == 0, "%s: a login after a handshake before it", tls.VersionName(version))
		before, ofBed := g.refusedCount("certificate revoked"), g.refusedTo("bed-1", "certificate revoked")
		for range 2 { // with its ticket and without one
			_, _, err := d.Enter(t, g.As("bed-1"))
			require.Error(t, err, "%s: it came as far as MQTT", tls.VersionName(version))
			d.TLS.ClientSessionCache = nil
		}
		assert.Equal(t, before+2, g.refusedCount("certificate revoked"))
		assert.Equal(t, ofBed+2, g.refusedTo("bed-1", "certificate revoked"))

		g.Enter(g.door(g.issue("bed-1")), g.As("bed-1"))
		g.Enter(g.door(kept), g.As("bed-2"))
	}
	assert.NoError(t, g.Serves(g.Doors[0]), "the server's own subscriber has a certificate of its own")
}

func TestV15CertificateWithoutARecordIsRevokedByItsFile(t *testing.T) {
	g := badges{siege.Begin(t, "PLANTOPS_LISTENERS_TLS_REQUIRE_CERTIFICATE=true"), t.TempDir()}
	ours := filepath.Join(g.In.Dir, "certs")
	authority, err := tls.LoadX509KeyPair(filepath.Join(ours, "ca.crt"), filepath.Join(ours, "ca.key"))
	require.NoError(t, err)
	unknown := certstest.Of(t, authority).IssueTo(pkix.Name{CommonName: "bed-1"}) // made with openssl and our key, or before there was an index
	a := g.Enter(g.door(unknown), g.As("bed-1"))
	file := filepath.Join(g.out, "unknown.crt")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: unknown.Certificate[0]}), 0o600))
	g.In.Run("certs", "revoke", "--cert", file)
	assert.True(t, a.Ended(siege.Effective))
	g.Refused(g.door(unknown), g.As("bed-1"))
}

// badgeState is what a device is doing when its certificate is revoked. prepare returns its connection, and what to look at
// when the device has come back with another certificate.
type badgeState struct {
	name    string
	prepare func(g badges, d door.Door, l rawmqtt.Login) (*door.Intruder, func(d door.Door))
}

var badgeStates = []badgeState{
	{"idle", func(g badges, d door.Door, l rawmqtt.Login) (*door.Intruder, func(door.Door)) {
		return g.Enter(d, l), nil
	}},
	{"publishing", func(g badges, d door.Door, l rawmqtt.Login) (*door.Intruder, func(door.Door)) {
		a := g.Enter(d, l)
		text := fmt.Appendf(nil, `{"timestamp":%d,"temperature":1}`, time.Now().UnixMilli())
		for id := uint16(1); id <= 200; id++ {
			a.Send(rawmqtt.Message{Topic: "devices/" + l.User + "/telemetry", ID: id, Payload: text}.Encode())
		}
		return a, nil
	}},
	{"backlog", func(g badges, d door.Door, l rawmqtt.Login) (*door.Intruder, func(door.Door)) {
		l.Resume = true
		own := "devices/" + l.User + "/commands"
		a := g.Enter(d, l)
		_, err := a.Subscribe(own)
		require.NoError(g.T, err)
		return a, func(again door.Door) {
			sender := l
			sender.ClientID, sender.Resume = l.User+"-sender", false
			_, err := g.Enter(g.Doors[0], sender).Publish(own, "sent after the revocation")
			require.NoError(g.T, err)
			assert.True(g.T, g.Enter(again, l).Comes("sent after the revocation", siege.Promptness), "the session is the account's")
		}
	}},
	{"will", func(g badges, d door.Door, l rawmqtt.Login) (*door.Intruder, func(door.Door)) {
		l.WillTopic, l.WillText = "devices/"+l.User+"/status", "last will"
		a := g.Enter(d, l)
		watcher := l
		watcher.ClientID, watcher.WillTopic = l.User+"-watcher", ""
		w := g.Enter(g.Doors[0], watcher)
		_, err := w.Subscribe("devices/" + l.User + "/#")
		require.NoError(g.T, err)
		return a, func(door.Door) {
			assert.False(g.T, w.Comes("last will", siege.Silence), "the will of whoever has the old certificate was sent")
		}
	}},
	{"QoS 2", func(g badges, d door.Door, l rawmqtt.Login) (*door.Intruder, func(door.Door)) {
		a := g.Enter(d, l)
		a.Send(rawmqtt.Message{QoS: 2, Topic: "devices/" + l.User + "/notes", ID: 77, Payload: []byte("half")}.Encode())
		_, err := a.Await(rawmqtt.Pubrec)
		require.NoError(g.T, err)
		return a, nil
	}},
}

func TestV12RevokedCertificateIsGoneInEveryState(t *testing.T) {
	g := badges{siege.Begin(t, "PLANTOPS_LISTENERS_TLS_REQUIRE_CERTIFICATE=true"), t.TempDir()}
	other := g.issue("bed-2")
	bystander := g.Enter(g.door(other), g.As("bed-2"))
	for i, s := range badgeStates {
		id := fmt.Sprintf("careless-%d", i)
		g.Secrets[id] = g.In.Add(id)[id]
		d := g.door(g.issue(id))
		a, look := s.prepare(g, d, g.As(id))
		begin := time.Now()
		g.In.Run("certs", "revoke", id)
		assert.True(t, a.Ended(siege.Effective), "%s: still connected", s.name)
		t.Logf("%s: command and end of the connection took %s", s.name, time.Since(begin))
		g.Refused(d, g.As(id))
		again := g.door(g.issue(id))
		if look != nil {
			look(again)
		}
		g.Enter(again, g.As(id))
	}
	code, err := bystander.Publish("devices/bed-2/notes", "still here")
	require.NoError(t, err)
	assert.Less(t, code, byte(rawmqtt.FirstFailure))
}
