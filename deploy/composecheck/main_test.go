package main

import (
	"os"
	"path/filepath"
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
