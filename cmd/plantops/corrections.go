package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/derive"
)

func newCalibrate(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "calibrate",
		Short: "Correct what a sensor says, from a time on",
		Long: `Correct what a sensor says, from a time on. What it sent stays stored, and is corrected whenever it is read; so a calibration can be
given later, and another one put in its place.`,
	}, newCalibrateSet(a), newCalibrateList(a), newCalibrateEnd(a))
}

func newCalibrateSet(a *app) *cobra.Command {
	var from, note string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "set DEVICE METRIC RAW=TRUE...",
		Short: "Calibrate a metric of a device with what it says and what is true",
		Long: `Calibrate a metric of a device. Each RAW=TRUE is a value that the device sends and what it should be: one shifts all values by the
same, two lay a line through both, more are a table with lines from each point to the next; beyond the outermost the last line goes on.
It is valid from --from, or from now on, until the next calibration of the metric. Of two from the same time the later one counts.`,
		Example: `  plantops calibrate set bed-1 soil 512=0 310=100
  plantops calibrate set bed-1 ph 4.2=4.01 7.3=7.00 --from 2026-03-01 --note "buffers of 2025"`,
		Args:              args(cobra.MinimumNArgs(3)),
		ValidArgsFunction: completeDevices(a),
		RunE: func(cmd *cobra.Command, words []string) error {
			points, err := derive.ParsePoints(words[2:])
			if err != nil {
				return usageError(cmd, err)
			}
			return a.calibrate(cmd, control.Calibration{Device: words[0], Metric: words[1], Points: points, Note: note}, from, asJSON)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "valid from then on: a date, an RFC 3339 time or a duration before now (default: now)")
	cmd.Flags().StringVar(&note, "note", "", "anything that is to be remembered of it")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func newCalibrateEnd(a *app) *cobra.Command {
	var from string
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "end DEVICE METRIC",
		Short:             "Take values as the device sends them, from a time on",
		Args:              args(cobra.ExactArgs(2)),
		ValidArgsFunction: completeDevices(a),
		RunE: func(cmd *cobra.Command, words []string) error {
			return a.calibrate(cmd, control.Calibration{Device: words[0], Metric: words[1]}, from, asJSON)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "from then on: a date, an RFC 3339 time or a duration before now (default: now)")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func (a *app) calibrate(cmd *cobra.Command, c control.Calibration, from string, asJSON bool) error {
	at, err := parseInstant("--from", from, a.now(), time.Local)
	if err != nil {
		return usageError(cmd, err)
	}
	if c.From = control.Moment(at); from == "" {
		c.From = control.Moment(a.now().UnixMilli())
	}
	return a.operateExisting(cmd.Context(), func(cfg config.Config, o control.Operator) error {
		done, err := o.Calibrate(cmd.Context(), c)
		if err != nil {
			return a.deviceHint(cmd.Context(), cfg, err, c.Device)
		}
		if asJSON {
			return printJSON(a.stdout, done)
		}
		what := "as it is sent"
		if len(done.Points) > 0 {
			what = "corrected by " + done.Points.String()
		}
		_, err = fmt.Fprintf(a.stdout, "From %s on, %s of %s is %s (version %d).\n", local(done.From), done.Metric, done.Device, what, done.Version)
		return err
	})
}

func newCalibrateList(a *app) *cobra.Command {
	return a.correctionList("list [DEVICE...]", "List calibrations; with devices, theirs", nil, func(c control.Corrections) (rows [][]string, list any) {
		rows = [][]string{{"DEVICE", "METRIC", "FROM", "VERSION", "KIND", "POINTS", "NOTE"}}
		for _, one := range c.Calibrations {
			rows = append(rows, []string{one.Device, one.Metric, local(one.From), strconv.Itoa(one.Version), one.Kind, orDash(one.Points.String()), orDash(one.Note)})
		}
		return rows, c.Calibrations
	})
}

// correctionList is a command that lists corrections of all devices or some.
func (a *app) correctionList(use, short string, flags func(cmd *cobra.Command), pick func(control.Corrections) (rows [][]string, list any)) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               use,
		Short:             short,
		ValidArgsFunction: completeDevices(a),
		RunE: func(cmd *cobra.Command, devices []string) error {
			return a.read(cmd.Context(), func(_ config.Config, db *store.Store) error {
				stored, err := db.Corrections(cmd.Context())
				if err != nil {
					return err
				}
				c := control.CorrectionsOf(stored)
				others := func(device string) bool { return len(devices) > 0 && !slices.Contains(devices, device) }
				c.Calibrations = slices.DeleteFunc(c.Calibrations, func(one control.Calibration) bool { return others(one.Device) })
				c.Voids = slices.DeleteFunc(c.Voids, func(one control.Void) bool { return others(one.Device) })
				rows, list := pick(c)
				if asJSON {
					return printJSON(a.stdout, list)
				}
				return table(a.stdout, rows)
			})
		},
	}
	if flags != nil {
		flags(cmd)
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func newVoid(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "void",
		Short: "Take readings that are wrong out of what is read, and back",
		Long: `Take readings that are wrong out of what is read: of a sensor that was in the sink, or of a test. They stay stored, and "void undo"
brings them back.`,
	}, newVoidAdd(a), newVoidList(a), newVoidUndo(a))
}

func newVoidAdd(a *app) *cobra.Command {
	var since, until, metric, reason string
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "add DEVICE --since TIME --reason TEXT",
		Short:             "Void the readings of a device from a time on, or to another",
		Example:           `  plantops void add bed-1 --since 2026-03-01T09:00 --until 2026-03-01T11:30 --metric ph --reason "probe was dry"`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeDevices(a),
		RunE: func(cmd *cobra.Command, words []string) error {
			if since == "" || strings.TrimSpace(reason) == "" {
				return usageError(cmd, errors.New("say from when on with --since, and why with --reason"))
			}
			from, err := parseInstant("--since", since, a.now(), time.Local)
			to, untilErr := parseInstant("--until", until, a.now(), time.Local)
			if err = errors.Join(err, untilErr); err == nil && until != "" && to <= from {
				err = fmt.Errorf("--since %s is not before --until %s", since, until)
			}
			if err != nil {
				return usageError(cmd, err)
			}
			v := control.Void{Device: words[0], Metric: metric, From: control.Moment(from), To: control.Moment(to), Reason: reason}
			return a.operateExisting(cmd.Context(), func(cfg config.Config, o control.Operator) error {
				done, err := o.Void(cmd.Context(), v)
				if err != nil {
					return a.deviceHint(cmd.Context(), cfg, err, v.Device)
				}
				if asJSON {
					return printJSON(a.stdout, done)
				}
				_, err = fmt.Fprintf(a.stdout, "Voided %s. Back with: plantops void undo %d\n", voidText(done), done.ID)
				return err
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&since, "since", "", "from then on: a date, an RFC 3339 time or a duration before now")
	flags.StringVar(&until, "until", "", "before then: as --since (default: also what is still to come)")
	flags.StringVar(&metric, "metric", "", "only this metric, which may be a derived one (default: all)")
	flags.StringVar(&reason, "reason", "", "why")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// voidText names a voided range.
func voidText(v control.Void) string {
	text := "all readings"
	if v.Metric != "" {
		text = v.Metric
	}
	text += " of " + v.Device + " from " + local(v.From)
	if v.To == 0 {
		return text + " on"
	}
	return text + " to " + local(v.To)
}

func newVoidList(a *app) *cobra.Command {
	var all bool
	return a.correctionList("list [DEVICE...]", "List voided ranges; with devices, theirs", func(cmd *cobra.Command) {
		cmd.Flags().BoolVar(&all, "all", false, "also those that were undone")
	}, func(c control.Corrections) (rows [][]string, list any) {
		c.Voids = slices.DeleteFunc(c.Voids, func(v control.Void) bool { return v.Undone != 0 && !all })
		rows = [][]string{{"ID", "DEVICE", "METRIC", "FROM", "TO", "REASON", "UNDONE"}}
		for _, v := range c.Voids {
			rows = append(rows, []string{strconv.FormatInt(v.ID, 10), v.Device, orDash(v.Metric), local(v.From), local(v.To), v.Reason, local(v.Undone)})
		}
		return rows, c.Voids
	})
}

func newVoidUndo(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "undo ID",
		Short: "Bring voided readings back; \"void list\" has the ids",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			id, err := strconv.ParseInt(words[0], 10, 64)
			if err != nil {
				return usageError(cmd, fmt.Errorf("%q is no id of a voided range: plantops void list", words[0]))
			}
			return a.operateExisting(cmd.Context(), func(_ config.Config, o control.Operator) error {
				if err := o.Unvoid(cmd.Context(), id); err != nil {
					return control.WithHint(err, "voided ranges: plantops void list")
				}
				_, err := fmt.Fprintf(a.stdout, "Voided range %d is undone: its readings are back.\n", id)
				return err
			})
		},
	}
}

func newDerive(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "derive",
		Short: "Metrics that are computed of others when they are read",
		Long: `Metrics that are computed of others of the same device at the same time, when they are read. Where one of those is missing there is
no value.

  NAME = vpd(TEMPERATURE, HUMIDITY)       vapour pressure deficit in kPa, of °C and %
  NAME = dewpoint(TEMPERATURE, HUMIDITY)  dew point in °C, of °C and %
  NAME = dli(LIGHT[, FACTOR])             light since midnight in mol/m², of µmol/m²s; FACTOR makes that of what the sensor sends
  NAME = 1.8*temperature + 32             a sum of metrics, each with a factor, and of constants`,
	}, newDeriveSet(a), newDeriveList(a), newDeriveRemove(a))
}

func newDeriveSet(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "set FORMULA",
		Short: "Add a derived metric, or give it another formula",
		Example: `  plantops derive set "vpd = vpd(temperature, humidity)"
  plantops derive set "dli = dli(lux, 0.0185)"
  plantops derive set "fahrenheit = 1.8*temperature + 32"`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			formula := strings.Join(words, " ")
			if _, err := derive.ParseFormula(formula); err != nil {
				return usageError(cmd, err)
			}
			return a.operateExisting(cmd.Context(), func(_ config.Config, o control.Operator) error {
				done, err := o.Derive(cmd.Context(), formula)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, done)
				}
				_, err = fmt.Fprintf(a.stdout, "Derived from now on, also of what is stored: %s%s.\n", done.Formula, inUnit(done.Unit))
				return err
			})
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func inUnit(unit string) string {
	if unit == "" {
		return ""
	}
	return ", in " + unit
}

func newDeriveList(a *app) *cobra.Command {
	cmd := a.correctionList("list", "List derived metrics", nil, func(c control.Corrections) (rows [][]string, list any) {
		rows = [][]string{{"NAME", "UNIT", "FORMULA"}}
		for _, d := range c.Derived {
			rows = append(rows, []string{d.Name, orDash(d.Unit), d.Formula})
		}
		return rows, c.Derived
	})
	cmd.Args, cmd.ValidArgsFunction = noArgs, nil
	return cmd
}

func newDeriveRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Derive a metric no longer",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			return a.operateExisting(cmd.Context(), func(_ config.Config, o control.Operator) error {
				if err := o.RemoveDerived(cmd.Context(), words[0]); err != nil {
					return control.WithHint(err, "derived metrics: plantops derive list")
				}
				_, err := fmt.Fprintf(a.stdout, "%s is derived no longer. Nothing that was stored is gone.\n", words[0])
				return err
			})
		},
	}
}

func newRetention(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "retention",
		Short: "Show what store.retention deletes, and confirm a large deletion",
		Long: `Readings that are older than store.retention are deleted by and by: never more per day of uptime than a day of
readings, because the clock may be wrong or the setting a mistake. After store.retention was lowered, or set for the first time,
more may wait: "retention show" says how much, and "retention confirm" lets it go at once. Each rule of store.retention_rules has a day per
day of its own; when the rules are changed, what was confirmed is forgotten.`,
	}, newRetentionShow(a), newRetentionConfirm(a))
}

func newRetentionShow(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show how long readings are kept, and what waits to be deleted",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.operate(cmd.Context(), func(_ config.Config, o control.Operator) error {
				w, err := o.Retention(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, w)
				}
				return table(a.stdout, retentionRows(w))
			})
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// retentionRows are a few for each rule, the devices before their colon, and for the devices of none.
func retentionRows(w control.WaitingRetention) (rows [][]string) {
	others := ""
	for _, r := range w.Rules {
		rows = append(rows, laneRows(r.Device+": ", r.LaneRetention, r.Messages, r.Newest)...)
		others = "others: "
	}
	if len(w.Rules) == 0 && w.KeepSeconds == 0 {
		return [][]string{{"kept", "for ever (store.retention is 0)"}}
	}
	rows = append(rows, laneRows(others, w.LaneRetention, w.Messages, w.Newest)...)
	if w.Doubt != "" {
		rows = append(rows, []string{"clock", "not to be trusted, so nothing is deleted: " + w.Doubt})
	}
	return rows
}

func laneRows(of string, r control.LaneRetention, messages int64, newest control.Moment) [][]string {
	if r.KeepSeconds == 0 {
		return [][]string{{of + "kept", "for ever"}}
	}
	rows := [][]string{
		{of + "kept", control.Span(time.Duration(r.KeepSeconds) * time.Second)},
		{of + "deleted", "what is older than " + local(r.Gone)},
		{of + "waiting", "nothing"},
	}
	if r.Gone == 0 {
		rows[1][1] = "nothing yet"
	}
	if messages > 0 {
		rows[2][1] = fmt.Sprintf("%s, from %s to %s", count(messages, "message"), local(r.Oldest), local(newest))
	}
	return rows
}

func newRetentionConfirm(a *app) *cobra.Command {
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "confirm",
		Short: "Delete at once what is older than store.retention",
		Long: `Say what is older than store.retention, ask, and delete it for good. Without a terminal add --yes. Where no server
runs the next one deletes it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.operate(cmd.Context(), func(_ config.Config, o control.Operator) error {
				w, err := o.Retention(cmd.Context())
				messages, _, _ := w.All()
				switch {
				case err != nil:
					return err
				case !w.Deletes():
					return fmt.Errorf("%w: store.retention is 0, readings are kept for ever", control.ErrNothingToConfirm)
				case w.Doubt != "":
					return fmt.Errorf("the clock is not to be trusted: %s", w.Doubt)
				case messages == 0:
					return fmt.Errorf("%w: no reading is older than store.retention", control.ErrNothingToConfirm)
				case !yes:
					if err := a.askWhetherToDelete(cmd, w); err != nil {
						return err
					}
				}
				if err := o.ConfirmRetention(cmd.Context(), w.Retention); err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, w)
				}
				_, err = fmt.Fprintf(a.stdout, "Confirmed: the running server, or the next one, deletes %s.\n", waitingText(w))
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// waitingText is for people: "12 messages before …", or with rules "12 messages of greenhouse-* before …, 3 of other devices before …".
func waitingText(w control.WaitingRetention) string {
	var parts []string
	add := func(messages int64, of string, due control.Moment) {
		if messages > 0 {
			parts = append(parts, fmt.Sprintf("%s%s before %s", count(messages, "message"), of, local(due)))
		}
	}
	for _, r := range w.Rules {
		add(r.Messages, " of "+r.Device, r.Due)
	}
	others := ""
	if len(w.Rules) > 0 {
		others = " of other devices"
	}
	add(w.Messages, others, w.Due)
	return strings.Join(parts, ", ")
}

// askWhetherToDelete returns nil when a person at a terminal types yes.
func (a *app) askWhetherToDelete(cmd *cobra.Command, w control.WaitingRetention) error {
	_, oldest, newest := w.All()
	what := fmt.Sprintf("This deletes %s, from %s to %s, for good", waitingText(w), local(oldest), local(newest))
	if a.stdin == nil || !term.IsTerminal(int(a.stdin.Fd())) {
		return usageError(cmd, fmt.Errorf("%s: add --yes if you mean it", strings.Replace(what, "This", "this", 1)))
	}
	fmt.Fprintf(a.stderr, "%s. Type yes to go on: ", what)
	answer, err := readLine(cmd.Context(), a)
	if err != nil {
		return err
	}
	if strings.TrimSpace(answer) != "yes" {
		return errors.New("nothing was deleted")
	}
	return nil
}

// readLine reads a line from the terminal, or gives up when ctx ends.
func readLine(ctx context.Context, a *app) (string, error) {
	type result struct {
		line string
		err  error
	}
	read := make(chan result, 1)
	go func() { // ends with the process: a read from a terminal cannot be broken off
		line, err := bufio.NewReader(a.stdin).ReadString('\n')
		read <- result{line, err}
	}()
	select {
	case r := <-read:
		return r.line, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
