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
	"alert":             {"store/garden", "store/history"},
	"alert/notify":      {"alert", "store/outbox"},
	"alert/watch":       {"alert", "alert/notify", "store/garden", "store/history", "store/outbox"},
	"bridge":            {"broker/topic"},
	"broker":            {"broker/access", "broker/journal", "broker/network", "broker/refusal", "broker/route", "broker/session", "broker/topic", "broker/validate"},
	"broker/access":     {"broker/topic"},
	"broker/brokertest": {"broker", "broker/brokertest/logtest", "certs/certstest", "config"},
	"broker/journal":    {},
	"broker/network":    {"broker/access", "broker/refusal"},
	"broker/refusal":    {"broker/topic"},
	"broker/route":      {"broker/topic"},
	"broker/session":    {"broker/topic"},
	"broker/topic":      {},
	"broker/validate":   {"broker/refusal"},

	"broker/topic/topictest":     {},
	"broker/journal/journaltest": {"broker/journal"},
	"certs":                      {},
	"cmd/plantops":               {"alert", "bridge", "broker", "broker/topic", "certs", "cmd/plantops/alerting", "cmd/plantops/clock", "cmd/plantops/doctor", "cmd/plantops/export", "cmd/plantops/histories", "cmd/plantops/intake", "cmd/plantops/listing", "cmd/plantops/mqttcli", "cmd/plantops/progress", "cmd/plantops/snippet", "config", "config/mosquitto", "control", "deploy/esp32", "ingest", "ingest/source", "store", "store/backup", "store/derive", "store/history", "store/keep", "store/people", "store/sqldoor", "web", "web/api", "web/gate", "web/qr"},
	"cmd/plantops/alerting":      {"alert", "alert/notify", "alert/watch", "config", "store", "store/garden", "store/history"},
	"cmd/plantops/clock":         {},
	"cmd/plantops/doctor":        {"control", "store"},
	"cmd/plantops/export":        {"cmd/plantops/listing", "cmd/plantops/progress", "store/foreign", "store/history"},
	"cmd/plantops/histories":     {},
	"cmd/plantops/intake":        {"cmd/plantops/histories", "cmd/plantops/progress", "control", "store", "store/foreign"},
	"cmd/plantops/listing":       {"control", "store", "store/history"},
	"cmd/plantops/mqttcli":       {},
	"cmd/plantops/progress":      {},
	"cmd/plantops/snippet":       {},
	"config":                     {"broker/topic"},
	"config/mosquitto":           {"broker/topic"},
	"control":                    {"alert", "alert/notify", "bridge", "broker", "certs", "ingest", "ingest/source", "store", "store/backup", "store/derive", "store/garden", "store/keep", "store/people"},
	"deploy/esp32":               {},
	"ingest":                     {"ingest/payload", "ingest/source", "store"},
	"ingest/source":              {"broker/topic", "ingest/payload"},
	"ingest/payload":             {"store"},
	"store":                      {"broker/journal", "broker/topic", "store/aside", "store/block", "store/derive", "store/garden", "store/history", "store/hourly", "store/numbered", "store/outbox", "store/pace", "store/pack", "store/password", "store/people", "store/resume", "store/salvage", "store/swap", "store/tail"},
	"store/aside":                {"store/swap"},
	"store/numbered":             {},
	"store/hourly":               {"store/history"},
	"store/keep":                 {},
	"store/sqldoor":              {"store/history"},
	"store/block":                {},
	"store/derive":               {"store/history"},
	"store/garden":               {"store/history"},
	"store/history":              {},
	"store/foreign":              {},
	"store/backup":               {"store", "store/swap"},
	"store/pace":                 {},
	"store/pack":                 {"store/block", "store/history"},
	"store/password":             {},
	"store/outbox":               {},
	"store/people":               {},
	"store/resume":               {"broker/journal"},
	"store/swap":                 {},
	"store/tail":                 {"store/block", "store/pack"},
	"store/salvage":              {},
	"web":                        {"web/gate"},
	"web/api":                    {"control", "store", "store/derive", "store/garden", "store/history", "store/people"},
	"web/gate":                   {"store/people"},
	"web/qr":                     {},
	"store/storetest":            {"store", "store/block/blocktest"},
	"store/block/blocktest":      {"store/block"},

	"broker/brokertest/logtest": {},
	"broker/brokertest/rawmqtt": {},
	"certs/certstest":           {},

	// What the tests from outside share. They speak MQTT with rawmqtt, not with a library: they send what a library would not.
	outside:              {},
	outside + "/door":    {"broker/brokertest/rawmqtt", outside + "/setting"},
	outside + "/fleet":   {"broker/brokertest/rawmqtt", outside + "/door", outside + "/program", outside + "/setting", "store"},
	outside + "/history": {},
	outside + "/load":    {"broker/brokertest/rawmqtt", outside + "/setting"},
	outside + "/program": {"broker/brokertest/logtest", "certs/certstest", outside + "/setting", "store"},
	outside + "/setting": {},
	outside + "/siege":   {"broker/brokertest/rawmqtt", outside + "/door", outside + "/program", outside + "/setting"},

	outside + "/history/check": {outside + "/history", outside + "/history/scene"},
	outside + "/history/scene": {"broker/brokertest/rawmqtt", outside + "/fleet", outside + "/history", outside + "/program", outside + "/setting"},

	// Folders of tests only, whose imports are those of their tests.
	outside + "/attack":   append(helpers, "certs/certstest"),
	outside + "/bench":    helpers,
	outside + "/esp32":    append(helpers, "broker/brokertest/logtest"),
	outside + "/intake":   {outside + "/load", outside + "/program", outside + "/setting"},
	outside + "/oldapi":   {"broker/brokertest/rawmqtt", outside + "/door", outside + "/program", outside + "/setting"},
	outside + "/powercut": append(helpers, outside+"/history", outside+"/history/scene", "store/backup"),
	outside + "/reload":   append(helpers, "certs/certstest"),
	outside + "/torture":  append(helpers, "broker", "broker/brokertest", "broker/brokertest/logtest", "ingest"),
}

// outside are the tests that know only the outside of the program.
const outside = "cmd/plantops/outside"

// helpers are what those tests may use. Of the program itself it is the store, to look at a file that no server uses.
var helpers = []string{"broker/brokertest/rawmqtt", outside + "/door", outside + "/fleet", outside + "/load", outside + "/program",
	outside + "/setting", outside + "/siege", "store"}

// homes are the only packages that may import a library; of mochi and a part of it, that of the part counts. Below broker
// stands mochi's packets (codes, constants, the types of one packet), never its server; so it does in the client of pub and sub.
var homes = map[string][]string{
	"github.com/mochi-mqtt/server/v2":         {"broker"},
	"github.com/mochi-mqtt/server/v2/packets": {"broker", "broker/brokertest", "broker/refusal", "broker/validate", "cmd/plantops/mqttcli"},

	"github.com/gorilla/websocket":     {"broker/network", "broker/brokertest"},
	"github.com/eclipse/paho.golang":   {"bridge", "ingest"}, // bridge uses its packets only
	"github.com/spf13/viper":           {"config"},
	"github.com/go-viper/mapstructure": {"config"},
	"go.yaml.in/yaml":                  {"config"},
	"modernc.org/sqlite":               {"store", "store/backup", "store/foreign", "store/sqldoor"},
	"database/sql":                     {"store", "store/backup", "store/foreign", "store/sqldoor"},
	"golang.org/x/crypto":              {"store/password"},
	"github.com/danielgtaylor/huma/v2": {"web/api"},
	"golang.org/x/time":                {"web/gate"},
	"rsc.io/qr":                        {"web/qr"},
	"github.com/spf13/cobra":           {"cmd/plantops"},
	"github.com/coreos/go-systemd":     {"cmd/plantops"},
	"github.com/lmittmann/tint":        {"cmd/plantops"},

	// Nobody may: they call methods by name, and the linker then keeps every method of the program, two megabytes.
	"text/template": {},
	"html/template": {},
}

type listed struct {
	ImportPath, Doc string
	Imports         []string

	TestImports, XTestImports []string
}

func listPackages(t *testing.T) []listed {
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,TestImports,XTestImports", module+"/...").Output()
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
	there := map[string]bool{}
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		assert.NotEmpty(t, p.Doc, "%s has no package comment", name)
		allowed, known := arrows[name]
		if !assert.True(t, known, "%s: say in arrows whom it may know", name) {
			continue
		}
		imports := p.Imports
		if strings.HasPrefix(name, outside) {
			imports = slices.Concat(imports, p.TestImports, p.XTestImports)
		}
		for _, imported := range imports {
			if other, ours := strings.CutPrefix(imported, module+"/"); ours && other != name { // which its own tests import
				assert.Contains(t, allowed, other, "%s must not import %s", name, other)
			}
		}
		there[name] = true
		if len(p.Imports) == 0 && strings.HasPrefix(name, outside+"/") {
			continue // its tests share helpers, and need not use all
		}
		for _, other := range allowed {
			assert.Contains(t, imports, module+"/"+other, "%s does not import %s: take it out of arrows", name, other)
		}
	}
	for name := range arrows {
		assert.True(t, there[name], "there is no package %s: take it out of arrows", name)
	}
}

func TestLibrariesHaveOneHome(t *testing.T) {
	used := map[string][]string{} // by library
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imported := range p.Imports {
			if library := libraryOf(imported); library != "" {
				used[library] = append(used[library], name)
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
	for library, places := range homes {
		for _, name := range places {
			assert.Contains(t, used[library], name, "%s does not import %s: take it out of homes", name, library)
		}
	}
}

// standardOnly are the packages that import no library at all.
var standardOnly = []string{"broker/access", "broker/brokertest/logtest", "broker/brokertest/rawmqtt", "broker/session", "broker/topic", "certs", "config/mosquitto", "store/block", "store/history", "store/salvage"}

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
	for _, name := range []string{"bridge", "broker", "certs", "config", "control", "ingest", "store", "web", "web/api", "web/gate"} {
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
