package refusal

import (
	"bytes"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func stranger(ip string) Source { return Source{Remote: &net.TCPAddr{IP: net.ParseIP(ip)}} }

func TestRefusalsAreCountedAllAndLoggedOnceAMinute(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	r := NewCounters(slog.New(slog.NewTextHandler(&out, nil)), func() time.Time { return now })
	for range 100 {
		r.Add(WrongPassword, stranger("10.0.0.1"))
		r.Add(WrongPassword, stranger("10.0.0.2"))
	}
	assert.Equal(t, map[string]int64{"wrong password": 200}, r.Counts())
	assert.Equal(t, 2, bytes.Count(out.Bytes(), []byte("msg=refused")))
	now = now.Add(time.Minute)
	r.Add(WrongPassword, stranger("10.0.0.1"))
	assert.Contains(t, out.String(), "more=99")
}

func TestAddressKey(t *testing.T) {
	key := func(ip string) string { return AddressKey(&net.TCPAddr{IP: net.ParseIP(ip), Port: 1}).String() }
	assert.Equal(t, "192.0.2.7/32", key("192.0.2.7"))
	assert.Equal(t, "192.0.2.7/32", key("::ffff:192.0.2.7"), "IPv4 on a socket of both families")
	assert.Equal(t, "2001:db8:1:2::/64", key("2001:db8:1:2:3:4:5:6"))
	assert.Equal(t, key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"), "one household")
	assert.NotEqual(t, key("2001:db8:1:2::1"), key("2001:db8:1:3::1"))
	zoned := AddressKey(&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"})
	assert.Equal(t, "fe80::/64", zoned.String())
}
