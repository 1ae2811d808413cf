package config

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRulesOfRetentionStandInTheFile(t *testing.T) {
	loaded, err := Load(write(t, `
store:
  retention: 365d
  retention_rules:
    - {device: "greenhouse-*", keep: 0}
    - {device: Pump.1, keep: 90d}
`), nil, nil)
	require.NoError(t, err)
	assert.Equal(t, []RetentionRule{{Device: "greenhouse-*"}, {Device: "Pump.1", Keep: 90 * 24 * time.Hour}}, loaded.Config.Store.RetentionRules)
	assert.Equal(t, "greenhouse-*: 0s, Pump.1: 90d", loaded.value("store.retention_rules").Value)
	_, err = Load(write(t, ""), []string{"PLANTOPS_STORE_RETENTION_RULES=a"}, nil)
	assert.NoError(t, err, "no variable has it, and others' are theirs")
}

func TestRulesOfRetentionThatAreNotWrittenRight(t *testing.T) {
	for text, says := range map[string]string{
		"a":                       "must be a list",
		"[a]":                     "store.retention_rules[0] (PATH:2): must have the keys device and keep",
		"[{device: a}]":           "store.retention_rules[0].keep (PATH:2): must say how long, for example 90d; 0 is for ever",
		"[{keep: 1d}]":            "store.retention_rules[0].device (PATH:2): must be the name of a device",
		"[{device: a, keep: 1}]":  "a duration needs a unit",
		"[{device: a, keep: 1m}]": "store.retention_rules[0].keep: 1m (PATH:2): must be 0 (for ever) or from 1h to 36500d",
		"[{device: a, keep: 1d}, {device: a, keep: 0}]":          "store.retention_rules[1].device: a (PATH:2): is there twice",
		"[{device: '*', metric: rssi, keep: 1d}]":                "store.retention_rules[0].metric: rssi (PATH:2): cannot be: readings are kept by device",
		"[{devices: a, keep: 1d}]":                               "an item has no devices; did you mean device?",
		"[{device: " + strings.Repeat("a", 257) + ", keep: 1d}]": "must be the name of a device",
	} {
		path := write(t, "store:\n  retention_rules: "+text+"\n")
		_, err := Load(path, nil, nil)
		assert.ErrorContains(t, err, strings.ReplaceAll(says, "PATH", path), "%s", text)
	}
}
