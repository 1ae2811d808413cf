package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
)

// app is what a command gets from outside. Commands reach for nothing else.
type app struct {
	stdin          *os.File // nil: none
	stdout, stderr io.Writer
	environ        []string
	now            func() time.Time
	build          build

	configPath string            // --config; "" searches
	overrides  map[string]string // flags that set a configuration key: key to text
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "plantops",
		Short: "MQTT broker and store for the sensors of a home, greenhouse or small farm",
		Long: `PlantOps takes what sensors send over MQTT and keeps it, in one program and one file.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 bad configuration, 4 unreachable, 5 not authorised.`,
		Example: `  plantops serve                     run the broker and the store
  plantops device add bed-1          make credentials for a device
  plantops user add anna --role viewer   let a person or another program in
  plantops readings bed-1 --since 1h what it sent`,
		Version:           a.build.Version,
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError(cmd, err) })

	a.overrides = map[string]string{}
	flags := root.PersistentFlags()
	flags.StringVarP(&a.configPath, "config", "c", "", "configuration file (default ./plantops.yaml, else /etc/plantops/plantops.yaml)")
	for name, key := range map[string]string{"data-dir": "data_dir", "log-level": "log.level", "log-format": "log.format"} {
		flags.Func(name, "set "+key, func(text string) error {
			a.overrides[key] = text
			return nil
		})
	}

	for _, cmd := range []*cobra.Command{
		newServe(a), newStatus(a), newDevice(a), newUser(a), newImport(a), newReadings(a), newQuarantine(a), newIngest(a),
		newCerts(a), newConfig(a), newSimulate(a), newVersion(a),
	} {
		root.AddCommand(cmd)
	}
	group(root)
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		group(completion)
		for _, shell := range completion.Commands() {
			shell.Args = noArgs
		}
	}
	return root
}

// group makes cmd a mere holder of other commands: alone it prints its help, with an unknown word it
// is wrong usage.
func group(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(children...)
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
		for _, name := range cmd.SuggestionsFor(args[0]) {
			err = control.WithHint(err, fmt.Sprintf("did you mean %q?", cmd.CommandPath()+" "+name))
			break
		}
		return usageError(cmd, err)
	}
	return cmd
}

// usageError is err with exit code 2 and the command to ask for help.
func usageError(cmd *cobra.Command, err error) error {
	return control.KindOf(errUsage, control.WithHint(err, fmt.Sprintf("see %q", cmd.CommandPath()+" --help")))
}

// args makes the complaints of a cobra check of arguments wrong usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError(cmd, err)
		}
		return nil
	}
}

func noArgs(cmd *cobra.Command, given []string) error {
	if len(given) > 0 {
		return usageError(cmd, fmt.Errorf("unexpected argument %q", given[0]))
	}
	return nil
}

// load reads the configuration with the flags of this command line.
func (a *app) load() (config.Loaded, error) {
	loaded, err := config.Load(a.configPath, a.environ, a.overrides)
	return loaded, control.KindOf(errConfig, err)
}

// warn tells a person something on standard error that is no failure.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.stderr, "plantops: "+format+"\n", args...)
}
