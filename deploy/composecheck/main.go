// Command composecheck loads compose files as Docker Compose does, merged, and fails unless those for production publish exactly
// one port in all, 8883, and the one of the backend alone, beside an existing broker, none.
//
//	cd deploy/composecheck && go run . ../docker-compose.yml ../docker-compose.prod.yml
//	cd deploy/composecheck && go run . -backend ../docker-compose.backend.yml
//
// It is a module of its own, so that compose-go stays out of PlantOps' dependencies.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func main() {
	backend := flag.Bool("backend", false, "the files are those of the backend alone")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: composecheck [-backend] FILE...")
		os.Exit(2)
	}
	judge, verdict := check, "the merged production files publish exactly 8883"
	if *backend {
		judge, verdict = checkBackend, "the backend alone opens no listener and publishes no port"
	}
	project, err := load(flag.Args())
	if err == nil {
		err = judge(project)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "composecheck:", err)
		os.Exit(1)
	}
	fmt.Println("composecheck:", verdict)
}

func load(files []string) (*types.Project, error) {
	options, err := cli.NewProjectOptions(files, cli.WithOsEnv)
	if err != nil {
		return nil, fmt.Errorf("read %v: %w", files, err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return nil, fmt.Errorf("merge %v: %w", files, err)
	}
	return project, nil
}

func check(project *types.Project) error {
	var published []string
	for _, service := range project.Services {
		if service.NetworkMode == "host" {
			return fmt.Errorf("service %s uses the host's network: every listener of it is published", service.Name)
		}
		for _, port := range service.Ports {
			published = append(published, fmt.Sprintf("%s:%d/%s", port.Published, port.Target, port.Protocol))
		}
	}
	if !slices.Equal(published, []string{"8883:8883/tcp"}) {
		return fmt.Errorf("published ports are %q, wanted exactly 8883:8883/tcp", published)
	}
	for name, service := range project.Services {
		if err := checkWeb(name, service); err != nil {
			return err
		}
	}
	return nil
}

// checkWeb: other containers must not reach the web page either, nor the registration of old firmware.
func checkWeb(name string, service types.ServiceConfig) error {
	for _, key := range []string{"PLANTOPS_HTTP_ADDRESS", "PLANTOPS_HTTP_REGISTRATION_ADDRESS"} {
		value := service.Environment[key]
		if value == nil || *value == "" || *value == "off" {
			continue
		}
		host, _, err := net.SplitHostPort(*value)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			return fmt.Errorf("service %s sets %s to %s, wanted a loopback address or off", name, key, *value)
		}
	}
	return nil
}

// checkBackend: one service that listens nowhere, sits in the network of the broker, and has its CA certificate read-only.
func checkBackend(project *types.Project) error {
	if len(project.Services) != 1 {
		return fmt.Errorf("%d services, wanted the backend alone", len(project.Services))
	}
	for name, service := range project.Services {
		if len(service.Ports) > 0 || service.NetworkMode == "host" {
			return fmt.Errorf("service %s publishes ports", name)
		}
		for _, listener := range []string{"TCP", "TLS", "WEBSOCKET"} {
			key := "PLANTOPS_LISTENERS_" + listener + "_ENABLED"
			if value := service.Environment[key]; value == nil || *value != "false" {
				return fmt.Errorf("service %s does not set %s to false", name, key)
			}
		}
		if err := checkWeb(name, service); err != nil {
			return err
		}
		for network := range service.Networks {
			if !project.Networks[network].External {
				return fmt.Errorf("network %s is not the broker's", network)
			}
		}
		if err := checkMount(service, "/app/certs/ca.crt"); err != nil {
			return err
		}
	}
	return nil
}

// checkMount: a file of the host, read-only, which Docker must not make a directory of when it is missing.
func checkMount(service types.ServiceConfig, target string) error {
	for _, volume := range service.Volumes {
		if volume.Target != target {
			continue
		}
		if !volume.ReadOnly || volume.Bind == nil || bool(volume.Bind.CreateHostPath) {
			return fmt.Errorf("%s is mounted with %+v, %+v", target, volume, volume.Bind)
		}
		return nil
	}
	return fmt.Errorf("%s is not mounted", target)
}
