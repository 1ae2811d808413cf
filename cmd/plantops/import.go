package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/config/mosquitto"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

func newImport(a *app) *cobra.Command {
	return group(&cobra.Command{Use: "import", Short: "Take over the set-up of another broker"}, newImportMosquitto(a))
}

// importOptions are the flags of an import.
type importOptions struct {
	apply, dryRun bool
	configOut     string
	force         bool
	asJSON        bool
}

func newImportMosquitto(a *app) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "mosquitto CONF",
		Short: "Take over a mosquitto.conf with its accounts, and say what becomes of every line",
		Long: `Take over a mosquitto.conf with what it includes, its password files and its ACL files.

Every line that is no comment is in one of three lists: taken over, taken over differently, no
equivalent; the last two say what changes and what to do. Without flags nothing is changed: the lists
are printed as comments and after them the configuration, so that the output is a plantops.yaml.

With --apply the users of the password files get accounts in the data directory, with their rules and
the passwords that they have. Accounts that exist already stay as they are.

Relative paths in CONF are taken from its folder.

Exit code 1: a file cannot be read, a password file has passwords that are not hashed, the file of
--config-out exists, or an account could not be made. Lines without equivalent are no failure.`,
		Example: `  plantops import mosquitto /etc/mosquitto/mosquitto.conf
  plantops import mosquitto /etc/mosquitto/mosquitto.conf --config-out plantops.yaml --apply`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.apply && o.dryRun {
				return usageError(cmd, errors.New("--apply and --dry-run: use one of them"))
			}
			return a.importMosquitto(cmd.Context(), args[0], o)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.dryRun, "dry-run", false, "change nothing (the default)")
	flags.BoolVar(&o.apply, "apply", false, "make the accounts")
	flags.StringVar(&o.configOut, "config-out", "", "write the configuration to `FILE`")
	flags.BoolVar(&o.force, "force", false, "let --config-out replace a file")
	addJSONFlag(cmd, &o.asJSON)
	return cmd
}

func (a *app) importMosquitto(ctx context.Context, conf string, o importOptions) error {
	loaded, err := a.load()
	if err != nil {
		return err
	}
	result, err := translate(loaded.Config, conf)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if err := a.printImport(result, o); err != nil {
		return err
	}
	if err := plainTextError(result.PlainText); err != nil {
		return err
	}
	if o.configOut != "" && !o.dryRun {
		if err := writeConfig(o.configOut, result.Settings, o.force); err != nil {
			return err
		}
		a.warn("wrote %s; check it with: plantops config check -c %s", o.configOut, o.configOut)
	}
	if !o.apply {
		return nil
	}
	return a.importAccounts(ctx, result.Accounts)
}

// translate reads the files and adds what is not Mosquitto's to say.
func translate(cfg config.Config, conf string) (mosquitto.Result, error) {
	path, err := filepath.Abs(conf)
	if err != nil {
		return mosquitto.Result{}, err
	}
	result, err := mosquitto.Translate(mosquitto.Options{
		Files: os.DirFS("/"), Path: path, CheckFilter: store.CheckFilter, MaxLevels: config.Default().Limits.MaxTopicLevels,
		CheckName: func(name string) error {
			if name == cfg.MQTT.BackendUsername {
				return fmt.Errorf("%w %q: it is the subscriber of this program, whose password is mqtt.backend_password", store.ErrInvalidID, name)
			}
			return store.CheckID(name)
		},
	})
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = control.WithHint(err, "Mosquitto's files are often for root and mosquitto alone: run the import with sudo, or on a copy")
		}
		return result, err
	}
	if cfg.DataDir != config.Default().DataDir {
		result.Settings = append([]mosquitto.Setting{{Key: "data_dir", Value: cfg.DataDir}}, result.Settings...)
	}
	return result, nil
}

// plainTextError refuses files with passwords that anybody could read.
func plainTextError(lines []*mosquitto.Line) error {
	if len(lines) == 0 {
		return nil
	}
	var where []string
	for _, l := range lines {
		where = append(where, l.Position())
	}
	return control.WithHint(fmt.Errorf("import: passwords are not hashed (%s); nothing was written and no account made", strings.Join(where, ", ")),
		"the report says at these lines how to hash them")
}

// importAccounts makes the accounts, as many as it can.
func (a *app) importAccounts(ctx context.Context, accounts []mosquitto.Account) error {
	return a.operate(ctx, func(cfg config.Config, o control.Operator) error {
		made := 0
		var errs []error
		for _, account := range accounts {
			err := o.AddUser(ctx, store.NewUser{Name: account.Name, Hash: account.Hash, Publish: account.Publish, Subscribe: account.Subscribe})
			if err != nil {
				errs = append(errs, err)
				continue
			}
			made++
		}
		a.warn("made %d of %d accounts in %s", made, len(accounts), cfg.DataDir)
		err := errors.Join(errs...)
		if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrOtherRole) {
			return control.WithHint(err, "accounts that exist stay as they are; to take one over anyway, remove it first: plantops user remove NAME")
		}
		return err
	})
}

// writeConfig writes plantops.yaml. Nothing in it is secret.
func writeConfig(path string, settings []mosquitto.Setting, force bool) error {
	how := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if !force {
		how |= os.O_EXCL
	}
	file, err := os.OpenFile(path, how, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return control.WithHint(fmt.Errorf("write configuration: %s exists already", path), "name another file, or replace it with --force")
	}
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := errors.Join(mosquitto.WriteYAML(file, settings), file.Close()); err != nil {
		return fmt.Errorf("write configuration %s: %w", path, err)
	}
	return nil
}

// importedLine is a line as --json prints it.
type importedLine struct {
	File string `json:"file"`
	Line int    `json:"line"` // 0 for what follows from a line that is not there
	Text string `json:"text"`
	Note string `json:"note,omitempty"`
}

type importedAccount struct {
	Name      string   `json:"name"`
	Publish   []string `json:"publish"`
	Subscribe []string `json:"subscribe"`
}

// printImport writes the report, and after it the configuration unless that goes to a file.
func (a *app) printImport(r mosquitto.Result, o importOptions) error {
	if o.asJSON {
		return printImportJSON(a.stdout, r)
	}
	prefix := ""
	if o.configOut == "" {
		prefix = "# "
	}
	var report strings.Builder
	for _, kind := range []mosquitto.Kind{mosquitto.TakenOver, mosquitto.Differently, mosquitto.NoEquivalent} {
		lines := r.Of(kind)
		fmt.Fprintf(&report, "%s (%d)\n", strings.ToUpper(kind.String()[:1])+kind.String()[1:], len(lines))
		for _, l := range lines {
			fmt.Fprintf(&report, "  %s: %s\n", l.Position(), l.Text)
			if l.Note != "" {
				fmt.Fprintf(&report, "      %s\n", l.Note)
			}
		}
	}
	fmt.Fprintf(&report, "Accounts (%d)\n", len(r.Accounts))
	for _, account := range r.Accounts {
		fmt.Fprintf(&report, "  %s: publish %s; subscribe %s\n", account.Name, filterList(account.Publish), filterList(account.Subscribe))
	}
	for line := range strings.Lines(report.String()) {
		if _, err := io.WriteString(a.stdout, prefix+line); err != nil {
			return err
		}
	}
	if o.configOut != "" {
		return nil
	}
	fmt.Fprintln(a.stdout)
	return mosquitto.WriteYAML(a.stdout, r.Settings)
}

func filterList(filters []string) string {
	if len(filters) == 0 {
		return "nothing"
	}
	return strings.Join(filters, ", ")
}

func printImportJSON(w io.Writer, r mosquitto.Result) error {
	lines := func(kind mosquitto.Kind) []importedLine {
		out := []importedLine{}
		for _, l := range r.Of(kind) {
			out = append(out, importedLine{l.File, l.Number, l.Text, l.Note})
		}
		return out
	}
	accounts := []importedAccount{}
	for _, account := range r.Accounts {
		accounts = append(accounts, importedAccount{account.Name, append([]string{}, account.Publish...), append([]string{}, account.Subscribe...)})
	}
	settings := map[string]any{}
	for _, s := range r.Settings {
		settings[s.Key] = s.Value
	}
	return printJSON(w, struct {
		TakenOver    []importedLine    `json:"taken_over"`
		Differently  []importedLine    `json:"taken_over_differently"`
		NoEquivalent []importedLine    `json:"no_equivalent"`
		Accounts     []importedAccount `json:"accounts"`
		Settings     map[string]any    `json:"settings"`
	}{lines(mosquitto.TakenOver), lines(mosquitto.Differently), lines(mosquitto.NoEquivalent), accounts, settings})
}
