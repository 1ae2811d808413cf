package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/config"
)

func newConfig(a *app) *cobra.Command {
	return group(&cobra.Command{Use: "config", Short: "Check the configuration, show where each value comes from"},
		newConfigCheck(a), newConfigShow(a))
}

func newConfigCheck(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Report every problem of the configuration; exit code 3 when there is one",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			loaded, err := a.load()
			if err != nil {
				return err
			}
			if err := checkWiring(loaded, certificateDate(a.now(), a.build.earliest())); err != nil {
				return err
			}
			a.warnConfig(loaded)
			_, err = fmt.Fprintf(a.stdout, "The configuration is good: %s.\n", configSource(loaded))
			return err
		},
	}
}

func newConfigShow(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print every value with where it comes from; secrets stay hidden",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			loaded, err := a.load()
			if err != nil {
				return err
			}
			a.warnConfig(loaded)
			if asJSON {
				type value struct {
					Key    string `json:"key"`
					Value  string `json:"value"`
					Source string `json:"source"`
				}
				values := make([]value, len(loaded.Values))
				for i, v := range loaded.Values {
					values[i] = value{v.Key, v.Value, v.Source}
				}
				return printJSON(a.stdout, values)
			}
			rows := [][]string{{"KEY", "VALUE", "SOURCE"}}
			for _, v := range loaded.Values {
				rows = append(rows, []string{v.Key, orDash(v.Value), v.Source})
			}
			return table(a.stdout, rows)
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// warnConfig prints what is odd about a configuration that works.
func (a *app) warnConfig(loaded config.Loaded) {
	for _, warning := range loaded.Warnings {
		a.warn("warning: %s", warning)
	}
	cfg := loaded.Config
	if usesOwnCA(cfg) && cfg.MQTT.CACert != "" && !exists(cfg.MQTT.CACert) {
		a.warn("warning: mqtt.ca_cert: %s does not exist yet; \"plantops serve\" will create it", cfg.MQTT.CACert)
	}
}

func configSource(loaded config.Loaded) string {
	if loaded.Path == "" {
		return "no file, the defaults and the environment"
	}
	return loaded.Path
}
