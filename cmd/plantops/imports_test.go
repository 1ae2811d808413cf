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
	"broker":            {"broker/access", "broker/network", "broker/refusal", "broker/session", "broker/topic", "broker/validate"},
	"broker/access":     {"broker/topic"},
	"broker/brokertest": {"broker", "config"},
	"broker/network":    {"broker/access", "broker/refusal"},
	"broker/refusal":    {"broker/access", "broker/topic"},
	"broker/session":    {"broker/topic"},
	"broker/topic":      {},
	"broker/validate":   {"broker/refusal", "broker/topic"},

	"broker/topic/topictest": {},
	"certs":                  {},
	"cmd/plantops":           {"broker", "certs", "config", "config/mosquitto", "control", "ingest", "store"},
	"config":                 {"broker/topic"},
	"config/mosquitto":       {"broker/topic"},
	"control":                {"broker", "certs", "ingest", "store"},
	"ingest":                 {"store"},
	"store":                  {"broker/topic"},
	"store/storetest":        {"store"},
}

// homes are the only packages that may import a library; of mochi and a part of it, that of the part counts. Below broker
// stands mochi's packets (codes, constants, the types of one packet), never its server.
var homes = map[string][]string{
	"github.com/mochi-mqtt/server/v2":         {"broker", "broker/brokertest"},
	"github.com/mochi-mqtt/server/v2/packets": {"broker", "broker/brokertest", "broker/network", "broker/refusal", "broker/validate"},

	"github.com/gorilla/websocket":     {"broker/network", "broker/brokertest"},
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
			if library := libraryOf(imported); library != "" {
				assert.Contains(t, homes[library], name, "%s must not import %s", name, imported)
			}
			if strings.HasPrefix(imported, module+"/") {
				continue // arrows judges these
			}
			if slices.Contains(standardOnly, name) {
				assert.False(t, strings.Contains(strings.Split(imported, "/")[0], "."), "%s imports %s: standard library only", name, imported)
			}
		}
	}
}

// standardOnly are the packages that import no library at all.
var standardOnly = []string{"broker/access", "broker/session", "broker/topic", "certs", "config/mosquitto"}

// libraryOf is the library of homes that an import belongs to, the longest where one stands in the other; "" for none.
func libraryOf(imported string) (found string) {
	for library := range homes {
		if (imported == library || strings.HasPrefix(imported, library+"/")) && len(library) > len(found) {
			found = library
		}
	}
	return found
}

// No exported signature may show a library that has one home: its users would need the library too. What stands below
// broker is for broker alone, and may show mochi's packets.
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
