package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestProductionPublishesOnly8883(t *testing.T) {
	project, err := load([]string{"../docker-compose.yml", "../docker-compose.prod.yml"})
	if err != nil {
		t.Fatal(err)
	}
	if err := check(project); err != nil {
		t.Fatal(err)
	}
}

func TestForgottenOverrideIsNoticed(t *testing.T) {
	for name, text := range map[string]string{
		"ports appended":   "services: {plantops: {ports: [\"8883:8883\"]}}",
		"host network":     "services: {plantops: {network_mode: host, ports: !reset []}}",
		"nothing":          "services: {plantops: {ports: !reset []}}",
		"the web page":     "services: {plantops: {ports: !override [\"8883:8883\", \"8080:8080\"]}}",
		"open to others":   "services: {plantops: {ports: !override [\"8883:8883\"]}}", // PLANTOPS_HTTP_ADDRESS stays :8080
		"old firmware":     "services: {plantops: {ports: !override [\"8883:8883\"], environment: {PLANTOPS_HTTP_ADDRESS: off, PLANTOPS_HTTP_REGISTRATION_ADDRESS: \":8000\"}}}",
		"a second service": "services: {plantops: {ports: !override [\"8883:8883\"]}, other: {image: x, ports: [\"80:80\"]}}",
	} {
		t.Run(name, func(t *testing.T) {
			override := filepath.Join(t.TempDir(), "override.yml")
			if err := os.WriteFile(override, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			project, err := load([]string{"../docker-compose.yml", override})
			if err != nil {
				t.Fatal(err)
			}
			if err := check(project); err == nil {
				t.Fatal("accepted")
			}
		})
	}
}

func TestImageKnowsItsBuildDate(t *testing.T) {
	t.Setenv("BUILD_DATE", "2026-01-07T12:00:00Z")
	project, err := load([]string{"../docker-compose.yml"})
	if err != nil {
		t.Fatal(err)
	}
	got := project.Services["plantops"].Build.Args["BUILD_DATE"]
	if got == nil || *got != "2026-01-07T12:00:00Z" {
		t.Fatalf("BUILD_DATE is %v", got)
	}
}

func TestCACertificateIsMountedReadOnlyAndNeverMade(t *testing.T) {
	for _, files := range [][]string{{"../docker-compose.yml"}, {"../docker-compose.yml", "../docker-compose.prod.yml"}} {
		project, err := load(files)
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range []string{"/etc/plantops/ca.crt", "/app/certs/ca.crt"} { // the second is the old system's
			if err := checkMount(project.Services["plantops"], target); err != nil {
				t.Error(files, err)
			}
		}
	}
}

// An .env of the old system that says nothing about TLS must not switch off what the configuration file switches on.
func TestComposeDoesNotSwitchTLSOff(t *testing.T) {
	for given, want := range map[string]string{"": "", "false": "false", "true": "true"} {
		t.Setenv("MQTT_USE_TLS", given)
		project, err := load([]string{"../docker-compose.yml"})
		if err != nil {
			t.Fatal(err)
		}
		if got := project.Services["plantops"].Environment["MQTT_USE_TLS"]; got == nil || *got != want {
			t.Errorf("MQTT_USE_TLS=%q gives %v", given, got)
		}
	}
}

func TestBackendAloneListensNowhere(t *testing.T) {
	project, err := load([]string{"../docker-compose.backend.yml"})
	if err != nil {
		t.Fatal(err)
	}
	if err := checkBackend(project); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"a port":           "services: {plantops: {ports: [\"8883:8883\"]}}",
		"a listener":       "services: {plantops: {environment: {PLANTOPS_LISTENERS_TLS_ENABLED: \"true\"}}}",
		"host network":     "services: {plantops: {network_mode: host, networks: !reset []}}",
		"the web page":     "services: {plantops: {ports: !override [\"8883:8883\", \"8080:8080\"]}}",
		"open to others":   "services: {plantops: {ports: !override [\"8883:8883\"]}}", // PLANTOPS_HTTP_ADDRESS stays :8080
		"old firmware":     "services: {plantops: {ports: !override [\"8883:8883\"], environment: {PLANTOPS_HTTP_ADDRESS: off, PLANTOPS_HTTP_REGISTRATION_ADDRESS: \":8000\"}}}",
		"a second service": "services: {other: {image: x}}",
		"own network":      "networks: {broker: {external: !reset false}}",
		"no certificate":   "services: {plantops: {volumes: !reset []}}",
	} {
		override := filepath.Join(t.TempDir(), "override.yml")
		if err := os.WriteFile(override, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		project, err := load([]string{"../docker-compose.backend.yml", override})
		if err == nil && checkBackend(project) == nil {
			t.Error(name, "is accepted")
		}
	}
}

// The build gets the folders that the program is made of and the notices that go with it, and not data/ with its private
// keys.
func TestBuildGetsTheProgramAndNothingElse(t *testing.T) {
	text, err := os.ReadFile("../Dockerfile.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	everything := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		everything = everything || line == "*"
		if kept, ok := strings.CutPrefix(line, "!"); ok {
			got = append(got, kept)
		}
	}
	if !everything {
		t.Error("not everything is left out to begin with")
	}
	list := exec.Command("go", "list", "-deps", "-f", "{{if .Module}}{{if .Module.Main}}{{.ImportPath}}{{end}}{{end}}", "./cmd/plantops")
	list.Dir = "../.."
	packages, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"go.mod", "go.sum", "LICENSE", "NOTICE", "THIRD_PARTY_NOTICES.md"}
	for _, path := range strings.Fields(string(packages)) {
		folders := strings.Split(strings.TrimPrefix(path, "github.com/plantops/plantops/"), "/")
		folder := folders[0]
		if folder == "deploy" { // where one folder is of the program, and the others are how it is run
			folder = strings.Join(folders[:2], "/")
		}
		want = append(want, folder)
	}
	slices.Sort(want)
	want = slices.Compact(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the build gets %q, wanted %q", got, want)
	}
}
