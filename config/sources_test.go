package config

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSourcesFromTheFileAndFromAVariable(t *testing.T) {
	path := write(t, `
ingest:
  sources:
    - tasmota
    - preset: zigbee2mqtt
      name: Attic
      base: house/zigbee
    - name: farm
      topic: farm/{device}/{metric}
      availability: farm/{device}/status
      value: Data.Value
      time: at
      fields:
        - {from: T.1, to: temperature, scale: 0.1, offset: -2}
        - {from: p, unit: kPa}
`)
	loaded, err := Load(path, nil, nil)
	require.NoError(t, err)
	assert.Equal(t, []Source{
		{Preset: "tasmota"},
		{Preset: "zigbee2mqtt", Name: "Attic", Base: "house/zigbee"},
		{Name: "farm", Topic: "farm/{device}/{metric}", Availability: "farm/{device}/status", Value: "Data.Value", Time: "at",
			Fields: []SourceField{{From: "T.1", To: "temperature", Scale: 0.1, Offset: -2}, {From: "p", Unit: "kPa"}}},
	}, loaded.Config.Ingest.Sources, "letters keep their case, dots stay")
	assert.Equal(t, "tasmota, Attic, farm", loaded.value("ingest.sources").Value)

	loaded, err = Load(path, []string{"PLANTOPS_INGEST_SOURCES=shelly, ttn"}, nil)
	require.NoError(t, err)
	assert.Equal(t, []Source{{Preset: "shelly"}, {Preset: "ttn"}}, loaded.Config.Ingest.Sources)
}

func TestSourcesThatAreNotWrittenRight(t *testing.T) {
	for text, says := range map[string]string{
		"sources: tasmota":                               "must be a list",
		"sources: [[tasmota]]":                           "each item must be the name of a preset",
		"sources: [{preset: 7}]":                         "preset is not text to YAML",
		"sources: [{preset: }]":                          "preset has no value",
		"sources: [{name: a, name: b}]":                  "name is here twice",
		"sources: [{topics: a}]":                         "an item has no topics; did you mean topic?",
		"sources: [{fields: {from: a}}]":                 "fields must be a list",
		"sources: [{fields: [a]}]":                       "each item of fields must have keys",
		"sources: [{fields: [{from: a, scale: .nan}]}]":  "scale must be a number",
		"sources: [{fields: [{from: a, scale: 0x1p3}]}]": "scale must be a number",
		`sources: [{topic: "a\nb"}]`:                     "without control characters",
	} {
		_, err := Load(write(t, "ingest:\n  "+text+"\n"), nil, nil)
		assert.ErrorContains(t, err, says, "%s", text)
		assert.ErrorContains(t, err, "ingest.sources", "%s", text)
	}
}
