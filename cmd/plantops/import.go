package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/cmd/plantops/histories"
	"github.com/plantops/plantops/cmd/plantops/intake"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/config/mosquitto"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

func newImport(a *app) *cobra.Command {
	return group(&cobra.Command{Use: "import", Short: "Take over the set-up of another broker, or readings of before"},
		newImportMosquitto(a), newImportReadings(a))
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

// readingsOptions are the flags of an import of readings.
type readingsOptions struct {
	apply, dryRun, onlyKnown, fromStart, extremes, asJSON    bool
	format, device, metric, value, mapFile, time, timeFormat string
	zone, separator, decimal, precision, statistics, rejects string
	columns                                                  []string
}

func newImportReadings(a *app) *cobra.Command {
	var o readingsOptions
	cmd := &cobra.Command{
		Use:   "readings FILE",
		Short: "Bring in histories: of InfluxDB, Home Assistant, ThingSpeak, CSV, and of this program",
		Long: `Read a file with readings of before, and say what becomes of every series in it: taken over, taken over
differently, no equivalent; and which lines are rejected, and why. Without flags nothing is changed.

With --apply the readings are stored, beside the running server, whose devices come first, or without one. What is there already
is known again, so the same file can be imported again; an import that was interrupted goes on where it stopped. Devices that
there are not yet come up as those do that send without an account.

The file is recognised by what is in it: CSV, JSON lines, line protocol of InfluxDB 1 and 2, ThingSpeak CSV, each also packed with
gzip; Parquet, the recorder database of Home Assistant, a database of this program or what its export writes. docs/commands.md says more
about each.

Exit code: 1 when the file cannot be read, or something not stored for another reason than what it is. Lines that are rejected are no
failure.`,
		Example: `  plantops import readings export.lp.gz --device '{tag:room}' --metric '{measurement}_{field}'
  plantops import readings home-assistant_v2.db --map names.csv --apply
  plantops import readings feeds.csv --device =bed-1 --column field1=temperature --column field2=humidity
  plantops import readings log.csv --time Datum+Zeit --tz Europe/Berlin --device =greenhouse --rejects rejected.csv`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.apply && o.dryRun {
				return usageError(cmd, errors.New("--apply and --dry-run: use one of them"))
			}
			options, err := o.intake(args[0])
			if err != nil {
				return usageError(cmd, err)
			}
			err = a.importReadings(cmd.Context(), options, o)
			if errors.Is(err, histories.ErrOptions) {
				return usageError(cmd, err)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.dryRun, "dry-run", false, "change nothing (the default)")
	flags.BoolVar(&o.apply, "apply", false, "store the readings")
	flags.StringVar(&o.format, "format", "", "csv, jsonl, influx, thingspeak, parquet, homeassistant, sqlite or plantops; without it what is in the file tells")
	flags.StringVar(&o.device, "device", "", "which device it is: a `NAME` of a column, =NAME for all; of InfluxDB a text such as '{tag:room}'")
	flags.StringVar(&o.metric, "metric", "", "which metric: a `NAME` of a column; of InfluxDB a text such as '{measurement}_{field}'")
	flags.StringVar(&o.value, "value", "", "the `COLUMN` of values, where a CSV file has one for all metrics")
	flags.StringArrayVar(&o.columns, "column", nil, "`NAME=METRIC`: the metric of a column; NAME= leaves it out")
	flags.StringVar(&o.mapFile, "map", "", "CSV `FILE` with NAME,DEVICE,METRIC for entities, fields or columns; the device - leaves one out")
	flags.StringVar(&o.time, "time", "", "the `COLUMN` of the time; DATE+TIME for two")
	flags.StringVar(&o.timeFormat, "time-format", "", "`FORMAT` of the time as in strftime, %s for seconds since 1970")
	flags.StringVar(&o.zone, "tz", "", "time `ZONE` of times that say none, for instance Europe/Berlin")
	flags.StringVar(&o.separator, "separator", "", "what separates the columns of CSV; tab for a tab")
	flags.StringVar(&o.decimal, "decimal", "", "the decimal mark of CSV, . or ,")
	flags.StringVar(&o.precision, "precision", "", "unit of InfluxDB's times: s, ms, us or ns; without it their size tells")
	flags.StringVar(&o.statistics, "statistics", "auto", "Home Assistant's statistics: auto (of times without states), all or none")
	flags.BoolVar(&o.extremes, "min-max", false, "Home Assistant's statistics: minimum and maximum too, as METRIC_min and METRIC_max")
	flags.BoolVar(&o.onlyKnown, "only-known", false, "leave out devices that there are not yet")
	flags.BoolVar(&o.fromStart, "from-start", false, "do not go on where an earlier import of the file stopped")
	flags.StringVar(&o.rejects, "rejects", "", "write all lines that are rejected to `FILE`, as CSV")
	addJSONFlag(cmd, &o.asJSON)
	return cmd
}

// intake turns the flags into options.
func (o readingsOptions) intake(path string) (intake.Options, error) {
	in := intake.Options{Path: path, Format: histories.Format(o.format), FromStart: o.fromStart, OnlyKnown: o.onlyKnown}
	if o.format != "" && !slices.Contains(histories.Formats, in.Format) {
		return in, fmt.Errorf("--format %s: use one of %v", o.format, histories.Formats)
	}
	in.Read = histories.Options{Device: o.device, Metric: o.metric, Value: o.value, Time: o.time, TimeFormat: o.timeFormat,
		Statistics: o.statistics, Extremes: o.extremes, CheckDevice: store.CheckID}
	if o.separator == "tab" {
		o.separator = "\t"
	}
	for _, one := range []struct {
		flag, text string
		to         *byte
	}{{"--separator", o.separator, &in.Read.Separator}, {"--decimal", o.decimal, &in.Read.Decimal}} {
		switch len(one.text) {
		case 0:
		case 1:
			*one.to = one.text[0]
		default:
			return in, fmt.Errorf("%s %s: use one character", one.flag, one.text)
		}
	}
	if o.precision != "" {
		var known bool
		in.Read.Precision, known = map[string]time.Duration{"s": time.Second, "ms": time.Millisecond, "us": time.Microsecond, "ns": time.Nanosecond}[o.precision]
		if !known {
			return in, fmt.Errorf("--precision %s: use s, ms, us or ns", o.precision)
		}
	}
	if o.zone != "" {
		zone, err := time.LoadLocation(o.zone)
		if err != nil {
			return in, fmt.Errorf("--tz %s: %w", o.zone, err)
		}
		in.Read.Zone = zone
	}
	metrics := map[string]string{}
	for _, one := range o.columns {
		name, metric, found := strings.Cut(one, "=")
		if !found || name == "" {
			return in, fmt.Errorf("--column %s: write NAME=METRIC", one)
		}
		metrics[name] = metric
	}
	in.Read.Map = histories.NewMap(metrics)
	if o.mapFile == "" {
		return in, nil
	}
	file, err := os.Open(o.mapFile)
	if err != nil {
		return in, err
	}
	defer file.Close() // it is only read
	if _, err := histories.ReadMap(in.Read.Map, file); err != nil {
		return in, fmt.Errorf("--map %s: %w", o.mapFile, err)
	}
	return in, nil
}

func (a *app) importReadings(ctx context.Context, in intake.Options, o readingsOptions) (err error) {
	loaded, err := a.load()
	if err != nil {
		return err
	}
	rules := retentionRules(loaded.Config)
	in.Now, in.Known = a.now(), map[string]struct{}{}
	in.Keep = func(device string) time.Duration {
		if i := rules.Of(device); i < len(rules) {
			return rules[i].Keep
		}
		return loaded.Config.Store.Retention
	}
	if exists(loaded.Config.StorePath()) {
		err = a.read(ctx, func(_ config.Config, db *store.Store) error {
			devices, err := db.Devices(ctx)
			for _, d := range devices {
				in.Known[d.ID] = struct{}{}
			}
			return err
		})
	}
	if err == nil && o.rejects != "" {
		var file *os.File
		if file, err = os.Create(o.rejects); err == nil {
			defer func() { err = errors.Join(err, file.Close()) }()
			in.Rejects = file
		}
	}
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	in.Progress = newProgress(a)
	if !o.apply {
		return a.runImport(ctx, in, o)
	}
	return a.operateExisting(ctx, func(_ config.Config, target control.Operator) error {
		in.Target = target
		return a.runImport(ctx, in, o)
	})
}

// runImport imports, or looks what would become of it, and prints the report.
func (a *app) runImport(ctx context.Context, in intake.Options, o readingsOptions) error {
	report, err := intake.Run(ctx, in)
	in.Progress.End()
	if report == nil {
		return fmt.Errorf("import: %w", err)
	}
	if o.asJSON {
		err = errors.Join(err, printJSON(a.stdout, report))
	} else {
		err = errors.Join(err, report.Print(a.stdout))
	}
	switch {
	case !o.apply && err == nil:
		a.warn("nothing was stored; to store it: --apply")
	case o.apply:
		a.warn("stored %s, %d more were there already", count(report.Stored, "reading"), report.Known)
	}
	if o.apply && ctx.Err() != nil {
		a.warn("the same command goes on where it stopped")
		return err
	}
	if o.apply && err != nil {
		err = control.WithHint(fmt.Errorf("import: not finished: %w", err), append(control.Hints(err), "the same command goes on where it stopped")...)
	}
	return err
}
