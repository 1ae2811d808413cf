package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

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
