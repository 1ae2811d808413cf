package main

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
)

func TestDevicesAreToldAnAddressThatTheyCanReach(t *testing.T) {
	for name, c := range map[string]struct {
		bound string
		extra []string
		want  string
	}{
		"one address":                   {"192.168.1.7", nil, "192.168.1.7"},
		"every address":                 {"", nil, lanAddress()},
		"every address, spelled out":    {"::", nil, lanAddress()},
		"a name":                        {"farm.example", nil, "farm.example"},
		"a name that a person gave":     {"", []string{"mqtt.farm.example", "10.0.0.9"}, "mqtt.farm.example"},
		"given name behind a container": {"0.0.0.0", []string{"10.0.0.9"}, "10.0.0.9"},
	} {
		t.Run(name, func(t *testing.T) {
			host, others := reachableHost(c.bound, c.extra)
			assert.Equal(t, c.want, host)
			assert.NotContains(t, others, host)
		})
	}
}

func TestCredentialsPreferTLS(t *testing.T) {
	cfg := config.Default()
	reach := control.Contact{TCP: "127.0.0.1:1883", TLS: "10.0.0.7:8883", CA: "PEM"}
	given := deviceCredentials("bed-1", "secret", cfg, reach)
	assert.Equal(t, credentials{DeviceID: "bed-1", Username: "bed-1", Password: "secret", Host: "10.0.0.7", Port: 8883, TLS: true,
		Topic: "devices/bed-1/telemetry", CA: "PEM", caPath: "data/certs/ca.crt"}, given)

	reach.TLS = ""
	given = deviceCredentials("bed-1", "secret", cfg, reach)
	assert.Equal(t, []any{"127.0.0.1", 1883, false, ""}, []any{given.Host, given.Port, given.TLS, given.CA})
}
