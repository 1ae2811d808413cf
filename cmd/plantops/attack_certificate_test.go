//go:build linux

package main_test

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Classes V15 and V12 for certificates: a revoked one is refused, and what was connected with it is ended, at once.

// badges gives devices certificates and shows them at the TLS door.
type badges struct {
	*siege
	out string
}

func (b badges) issue(name string) tls.Certificate {
	b.t.Helper()
	dir, err := os.MkdirTemp(b.out, "")
	require.NoError(b.t, err)
	b.in.run("certs", "issue", name, "--out", dir)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	require.NoError(b.t, err)
	return pair
}

func (b badges) door(certificates ...tls.Certificate) door {
	d := b.doors[1]
	d.tls = d.tls.Clone()
	d.tls.Certificates = certificates
	return d
}

// refusedCount is how often the server has refused something for a reason.
func (b badges) refusedCount(reason string) int64 {
	b.t.Helper()
	var status struct {
		Connections struct {
			Refused map[string]int64 `json:"refused"`
		} `json:"connections"`
	}
	require.NoError(b.t, json.Unmarshal(b.in.run("status", "--json"), &status))
	return status.Connections.Refused[reason]
}

// refusedTo is the same for one device, as its owner sees it.
func (b badges) refusedTo(id, reason string) (count int64) {
	b.t.Helper()
	var device struct {
		Refusals []struct {
			Reason string
			Count  int64
		}
	}
	require.NoError(b.t, json.Unmarshal(b.in.run("device", "show", id, "--json"), &device))
	for _, r := range device.Refusals {
		if r.Reason == reason {
			count = r.Count
		}
	}
	return count
}

func TestV15RevokedCertificateOpensNothing(t *testing.T) {
	g := badges{besiege(t, "PLANTOPS_LISTENERS_TLS_REQUIRE_CERTIFICATE=true"), t.TempDir()}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		lost, kept := g.issue("bed-1"), g.issue("bed-2")
		d := g.door(lost)
		d.tls.MinVersion, d.tls.MaxVersion = version, version
		d.tls.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		g.enter(d, g.as("bed-1"))
		resumed := g.enter(d, g.as("bed-1"))
		require.True(t, resumed.Conn.(*tls.Conn).ConnectionState().DidResume, "%s: it has a ticket", tls.VersionName(version))
		waiting, err := d.open(t, "") // through the handshake, before the login
		require.NoError(t, err)
		require.NoError(t, waiting.Conn.(*tls.Conn).Handshake())

		g.in.run("certs", "revoke", "bed-1")
		assert.True(t, resumed.ended(effective), "%s: a resumed connection goes on", tls.VersionName(version))
		waiting.send(g.as("bed-1").encode())
		answer, err := waiting.await(connack)
		assert.False(t, err == nil && answer[1] == 0, "%s: a login after a handshake before it", tls.VersionName(version))
		before, ofBed := g.refusedCount("certificate revoked"), g.refusedTo("bed-1", "certificate revoked")
		for range 2 { // with its ticket and without one
			_, _, err := d.enter(t, g.as("bed-1"))
			require.Error(t, err, "%s: it came as far as MQTT", tls.VersionName(version))
			d.tls.ClientSessionCache = nil
		}
		assert.Equal(t, before+2, g.refusedCount("certificate revoked"))
		assert.Equal(t, ofBed+2, g.refusedTo("bed-1", "certificate revoked"))

		g.enter(g.door(g.issue("bed-1")), g.as("bed-1"))
		g.enter(g.door(kept), g.as("bed-2"))
	}
	assert.NoError(t, g.serves(g.doors[0]), "the server's own subscriber has a certificate of its own")
}

func TestV15CertificateWithoutARecordIsRevokedByItsFile(t *testing.T) {
	g := badges{besiege(t, "PLANTOPS_LISTENERS_TLS_REQUIRE_CERTIFICATE=true"), t.TempDir()}
	ours := filepath.Join(g.in.dir, "certs")
	authority, err := tls.LoadX509KeyPair(filepath.Join(ours, "ca.crt"), filepath.Join(ours, "ca.key"))
	require.NoError(t, err)
	unknown := forge(t, authority, "bed-1", nil) // made with openssl and our key, or before there was an index
	a := g.enter(g.door(unknown), g.as("bed-1"))
	file := filepath.Join(g.out, "unknown.crt")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: unknown.Certificate[0]}), 0o600))
	g.in.run("certs", "revoke", "--cert", file)
	assert.True(t, a.ended(effective))
	g.refused(g.door(unknown), g.as("bed-1"))
}

// badgeState is what a device is doing when its certificate is revoked. prepare returns its connection, and what to look at
// when the device has come back with another certificate.
type badgeState struct {
	name    string
	prepare func(g badges, d door, l login) (*intruder, func(d door))
}

var badgeStates = []badgeState{
	{"idle", func(g badges, d door, l login) (*intruder, func(door)) { return g.enter(d, l), nil }},
	{"publishing", func(g badges, d door, l login) (*intruder, func(door)) {
		a := g.enter(d, l)
		text := fmt.Appendf(nil, `{"timestamp":%d,"temperature":1}`, time.Now().UnixMilli())
		for id := uint16(1); id <= 200; id++ {
			a.send(encodePublish(5, 1, false, "devices/"+l.user+"/telemetry", id, text))
		}
		return a, nil
	}},
	{"backlog", func(g badges, d door, l login) (*intruder, func(door)) {
		l.resume = true
		own := "devices/" + l.user + "/commands"
		a := g.enter(d, l)
		_, err := a.subscribe(own)
		require.NoError(g.t, err)
		return a, func(again door) {
			sender := l
			sender.client, sender.resume = l.user+"-sender", false
			_, err := g.enter(g.doors[0], sender).publish(own, "sent after the revocation")
			require.NoError(g.t, err)
			assert.True(g.t, g.enter(again, l).comes("sent after the revocation", silence), "the session is the account's")
		}
	}},
	{"will", func(g badges, d door, l login) (*intruder, func(door)) {
		l.willTopic, l.willText = "devices/"+l.user+"/status", "last will"
		a := g.enter(d, l)
		watcher := l
		watcher.client, watcher.willTopic = l.user+"-watcher", ""
		w := g.enter(g.doors[0], watcher)
		_, err := w.subscribe("devices/" + l.user + "/#")
		require.NoError(g.t, err)
		return a, func(door) {
			assert.False(g.t, w.comes("last will", silence), "the will of whoever has the old certificate was sent")
		}
	}},
	{"QoS 2", func(g badges, d door, l login) (*intruder, func(door)) {
		a := g.enter(d, l)
		a.send(encodePublish(5, 2, false, "devices/"+l.user+"/notes", 77, []byte("half")))
		_, err := a.await(pubrec)
		require.NoError(g.t, err)
		return a, nil
	}},
}

func TestV12RevokedCertificateIsGoneInEveryState(t *testing.T) {
	g := badges{besiege(t, "PLANTOPS_LISTENERS_TLS_REQUIRE_CERTIFICATE=true"), t.TempDir()}
	other := g.issue("bed-2")
	bystander := g.enter(g.door(other), g.as("bed-2"))
	for i, s := range badgeStates {
		id := fmt.Sprintf("careless-%d", i)
		g.secrets[id] = g.in.add(id)[id]
		d := g.door(g.issue(id))
		a, look := s.prepare(g, d, g.as(id))
		begin := time.Now()
		g.in.run("certs", "revoke", id)
		assert.True(t, a.ended(effective), "%s: still connected", s.name)
		t.Logf("%s: command and end of the connection took %s", s.name, time.Since(begin))
		g.refused(d, g.as(id))
		again := g.door(g.issue(id))
		if look != nil {
			look(again)
		}
		g.enter(again, g.as(id))
	}
	code, err := bystander.publish("devices/bed-2/notes", "still here")
	require.NoError(t, err)
	assert.Less(t, code, byte(firstFailure))
}
