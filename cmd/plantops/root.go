package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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

	// How the clock is judged; nil asks the kernel.
	boot         string                            // names this start of the machine
	clocks       func() (time.Time, time.Duration) // now, and how long ago the machine was started
	synchronised func() bool                       // with a time server

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
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) && len(unknown.GetSpecifiedName()) > 1 {
			var names []string
			cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
			err = didYouMean(err, "--", unknown.GetSpecifiedName(), names)
		}
		return usageError(cmd, flagError(err))
	})

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
		newServe(a), newStatus(a), newDoctor(a), newHealthcheck(a), newDevice(a), newUser(a), newToken(a), newPair(a), newOpen(a), newImport(a), newReadings(a), newSQL(a), newExport(a), newQuarantine(a), newIngest(a),
		newCalibrate(a), newVoid(a), newDerive(a), newRetention(a), newAlert(a), newBackup(a), newRestore(a), newCheck(a), newPub(a), newSub(a), newRetained(a), newSession(a),
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
		var names []string
		for _, child := range cmd.Commands() {
			if child.IsAvailableCommand() {
				names = append(names, child.Name())
			}
		}
		return usageError(cmd, didYouMean(err, cmd.CommandPath()+" ", args[0], names))
	}
	return cmd
}

// didYouMean adds the word that was probably meant to err, if one is near enough.
func didYouMean(err error, before, word string, known []string) error {
	if near, found := nearest(word, known); found {
		return control.WithHint(err, fmt.Sprintf("did you mean %q?", before+near))
	}
	return err
}

// nearest returns the known word that was probably meant: one that begins so, else one that is spelled almost so.
func nearest(word string, known []string) (string, bool) {
	lower := strings.ToLower(word)
	for _, k := range known {
		if word != "" && k != word && strings.HasPrefix(strings.ToLower(k), lower) {
			return k, true
		}
	}
	for _, k := range known {
		if k != word && strings.EqualFold(k, word) {
			return k, true
		}
	}
	near, found := config.Nearest(word, known)
	return near, found && near != word
}

// flagError says what a flag would take, in words of our own: those of the library name functions of its language.
func flagError(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	flag := invalid.GetFlag()
	accepted := map[string]string{
		"int": "a whole number", "int64": "a whole number", "uint": "a whole number", "duration": "a time such as 30s, 10m or 2h",
		"bool": "true or false", "float64": "a number",
	}[flag.Value.Type()]
	if accepted == "" {
		return err
	}
	return fmt.Errorf("--%s %s: use %s", flag.Name, invalid.GetValue(), accepted)
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
	if loaded.NotSearched != "" {
		a.warn("%s", loaded.NotSearched)
	}
	return loaded, control.KindOf(errConfig, err)
}

// sameData are the flags with which another command line works on the same data, with a space in front; "" when it needs none.
func (a *app) sameData(configPath string) string {
	flags := ""
	if configPath != "" && configPath != "plantops.yaml" && configPath != "/etc/plantops/plantops.yaml" {
		flags += " -c " + configPath
	}
	if dir := a.overrides["data_dir"]; dir != "" {
		flags += " --data-dir " + dir
	}
	return flags
}

// warn tells a person something on standard error that is no failure.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.stderr, "plantops: "+format+"\n", args...)
}

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
