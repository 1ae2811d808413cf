// Command composecheck loads the production compose files as Docker Compose does, merged, and fails
// unless exactly one port is published in all: 8883.
//
//	cd deploy/composecheck && go run . ../docker-compose.yml ../docker-compose.prod.yml
//
// It is a module of its own, so that compose-go stays out of PlantOps' dependencies.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: composecheck FILE...")
		os.Exit(2)
	}
	project, err := load(os.Args[1:])
	if err == nil {
		err = check(project)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "composecheck:", err)
		os.Exit(1)
	}
	fmt.Println("composecheck: the merged production files publish exactly 8883")
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
	return nil
}
