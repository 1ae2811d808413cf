package main

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/plantops/plantops"

// arrows are the packages of ours that a package may know. Nobody knows cmd.
var arrows = map[string][]string{
	"broker":            {"broker/session", "broker/topic"},
	"broker/brokertest": {"broker"},
	"broker/session":    {"broker/topic"},
	"broker/topic":      {},

	"broker/topic/topictest": {},
	"certs":                  {},
	"cmd/plantops":           {"broker", "certs", "cmd/plantops/doctor", "cmd/plantops/listing", "cmd/plantops/snippet", "config", "config/mosquitto", "control", "deploy/esp32", "ingest", "store"},
	"cmd/plantops/doctor":    {"control", "store"},
	"cmd/plantops/listing":   {"control", "store"},
	"cmd/plantops/snippet":   {},
	"config":                 {"broker/topic"},
	"config/mosquitto":       {"broker/topic"},
	"control":                {"broker", "certs", "ingest", "store"},
	"deploy/esp32":           {},
	"ingest":                 {"store"},
	"store":                  {"broker/topic"},
	"store/storetest":        {"store"},
}

// homes are the only packages that may import a library.
var homes = map[string][]string{
	"github.com/mochi-mqtt/server/v2":  {"broker", "broker/brokertest"},
	"github.com/gorilla/websocket":     {"broker", "broker/brokertest"},
	"github.com/eclipse/paho.golang":   {"ingest"},
	"github.com/spf13/viper":           {"config"},
	"github.com/go-viper/mapstructure": {"config"},
	"go.yaml.in/yaml":                  {"config"},
	"modernc.org/sqlite":               {"store"},
	"database/sql":                     {"store"},
	"golang.org/x/crypto":              {"store"},
	"github.com/spf13/cobra":           {"cmd/plantops"},
	"github.com/coreos/go-systemd":     {"cmd/plantops"},
	"github.com/lmittmann/tint":        {"cmd/plantops"},
}

type listed struct {
	ImportPath, Doc string
	Imports         []string
}

func listPackages(t *testing.T) []listed {
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,Imports", module+"/...").Output()
	require.NoError(t, err)
	var packages []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p listed
		require.NoError(t, dec.Decode(&p))
		packages = append(packages, p)
	}
	return packages
}

func TestPackagesKnowOnlyWhomTheyMay(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		assert.NotEmpty(t, p.Doc, "%s has no package comment", name)
		allowed, known := arrows[name]
		if !assert.True(t, known, "%s: say in arrows whom it may know", name) {
			continue
		}
		for _, imported := range p.Imports {
			if other, ours := strings.CutPrefix(imported, module+"/"); ours {
				assert.Contains(t, allowed, other, "%s must not import %s", name, other)
			}
		}
	}
}

func TestLibrariesHaveOneHome(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imported := range p.Imports {
			for library, home := range homes {
				if imported == library || strings.HasPrefix(imported, library+"/") {
					assert.Contains(t, home, name, "%s must not import %s", name, imported)
				}
			}
			if strings.HasPrefix(imported, module+"/") {
				continue // arrows judges these
			}
			if name == "certs" || name == "broker/session" || name == "broker/topic" || name == "config/mosquitto" {
				assert.False(t, strings.Contains(strings.Split(imported, "/")[0], "."), "%s imports %s: standard library only", name, imported)
			}
		}
	}
}

// No exported signature may show a library that has one home: its users would need the library too.
func TestNoLibraryInExportedSignatures(t *testing.T) {
	for _, name := range []string{"broker", "certs", "config", "control", "ingest", "store"} {
		out, err := exec.Command("go", "doc", "-all", "-short", module+"/"+name).Output()
		require.NoError(t, err)
		code := slices.DeleteFunc(strings.Split(string(out), "\n"), func(line string) bool {
			return strings.HasPrefix(line, "    ") || strings.HasPrefix(strings.TrimSpace(line), "//")
		})
		for _, library := range []string{"mqtt.", "packets.", "paho.", "autopaho.", "viper.", "sql.", "driver.", "cobra."} {
			for _, line := range code {
				assert.NotRegexp(t, `\b`+strings.ReplaceAll(library, ".", `\.`)+`[A-Z]`, line, "package %s", name)
			}
		}
	}
}
