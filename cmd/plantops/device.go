package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

func newDevice(a *app) *cobra.Command {
	return group(&cobra.Command{Use: "device", Short: "Add, list, show and remove devices"},
		newDeviceAdd(a), newDeviceList(a), newDeviceShow(a), newDeviceRotate(a), newDeviceRemove(a))
}

func newDeviceAdd(a *app) *cobra.Command {
	cmd := onboardCommand(a, "add ID", "Register a device and print its credentials, once", addDevice)
	cmd.Long = `Register a device and print, once, what it needs to connect. With --for it prints what to paste into the device instead:

` + formsHelp() + `
With --wait it waits until the device's first reading is stored.`
	cmd.Example = `  plantops device add bed-1
  plantops device add bed-1 --for esphome > bed-1.yaml
  plantops device add bed-1 --for arduino --dir ~/Arduino --host 192.168.1.10 --wait`
	return withSource(a, cmd)
}

func newDeviceRotate(a *app) *cobra.Command {
	cmd := onboardCommand(a, "rotate ID", "Give a device a new password; the old one ends at once", rotateDevice)
	cmd.ValidArgsFunction = completeDevices(a)
	return cmd
}

// deviceHint adds to err what a person can do about it. A name that is not known is compared with those that are.
func (a *app) deviceHint(ctx context.Context, cfg config.Config, err error, id string) error {
	switch {
	case errors.Is(err, store.ErrExists):
		return control.WithHint(err, fmt.Sprintf("a new password for it: plantops device rotate %s", id))
	case errors.Is(err, store.ErrNotFound):
		var names []string
		if db, openErr := a.openReadOnly(ctx, cfg); openErr == nil {
			defer db.Close()
			names = deviceNames(ctx, db)
		}
		return didYouMean(control.WithHint(err, "registered devices: plantops device list"), "", id, names)
	}
	return err
}

// deviceNames are empty when the database does not tell.
func deviceNames(ctx context.Context, db *store.Store) []string {
	var names []string
	devices, _ := db.Devices(ctx)
	for _, d := range devices {
		names = append(names, d.ID)
	}
	return names
}

func newDeviceRemove(a *app) *cobra.Command {
	var purge bool
	var yes string
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Take a device's access away and end its connection; its readings stay",
		Long: `Take a device's access away and end its connection. Its readings stay, unless --purge: then they are deleted
for good, with everything else that is known of it. That is asked twice; --yes ID answers both questions.`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeDevices(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := args[0]
			if purge && yes != id {
				if err := a.askTwice(cmd, id); err != nil {
					return err
				}
			}
			return a.operateExisting(cmd.Context(), func(cfg config.Config, o control.Operator) error {
				err := o.RemoveDevice(cmd.Context(), id)
				if purge && errors.Is(err, store.ErrNotFound) {
					err = nil // removed before
				}
				if err == nil && !purge {
					_, err = fmt.Fprintf(a.stdout, "Device %s can no longer connect. Its readings stay.\n", id)
					return err
				}
				var n int64
				if err == nil {
					n, err = o.PurgeDevice(cmd.Context(), id)
				}
				if err != nil {
					return a.deviceHint(cmd.Context(), cfg, err, id)
				}
				_, err = fmt.Fprintf(a.stdout, "Device %s can no longer connect. Its readings are deleted: %s.\n", id, count(n, "message"))
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "delete its readings too, for good")
	cmd.Flags().StringVar(&yes, "yes", "", "with --purge: the device's id once more, instead of being asked")
	return cmd
}

// askTwice makes sure that somebody at a terminal means it.
func (a *app) askTwice(cmd *cobra.Command, id string) error {
	if a.stdin == nil || !term.IsTerminal(int(a.stdin.Fd())) {
		return usageError(cmd, fmt.Errorf("--purge deletes all readings of %s for good: say --yes %s", id, id))
	}
	in := bufio.NewScanner(a.stdin)
	for _, ask := range []struct{ question, want string }{
		{fmt.Sprintf("Delete all readings of %s for good? Type yes: ", id), "yes"},
		{"They cannot be brought back. Type the device's id: ", id},
	} {
		fmt.Fprint(a.stderr, ask.question)
		if !in.Scan() || strings.TrimSpace(in.Text()) != ask.want {
			return errors.New("nothing was changed")
		}
	}
	return nil
}

// deviceState is for people.
func deviceState(d control.DeviceStatus) string {
	state := "offline"
	if d.Online {
		state = "online"
	}
	if !d.Registered && d.Source == "" {
		state += ", not registered"
	}
	return state
}

// lastSeen is for people.
func lastSeen(d control.DeviceStatus, now time.Time) string {
	text := ago(d.LastSeen, now)
	if d.LastSeenUnsure {
		text += " (clock not set)"
	}
	return text
}

// gateway is who speaks for a device, for people.
func gateway(d control.DeviceStatus) string {
	if d.Source != "" && d.Gateway == "" {
		return "not known"
	}
	return orDash(d.Gateway)
}

func newDeviceList(a *app) *cobra.Command {
	var asJSON, offline bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List devices with state and message counts",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.read(cmd.Context(), func(cfg config.Config, db *store.Store) error {
				known, err := db.Devices(cmd.Context())
				if err != nil {
					return err
				}
				now, refused := a.now(), inMemory(cmd.Context(), a, cfg, (*control.Client).Refusals)
				devices := []control.DeviceStatus{}
				for _, d := range known {
					one := control.NewDeviceStatus(d, cfg.Ingest.OfflineAfter, now).WithRefusals(refused)
					if !offline || !one.Online {
						devices = append(devices, one)
					}
				}
				if asJSON {
					return printJSON(a.stdout, devices)
				}
				switch {
				case len(known) == 0:
					a.warn("no device yet; make one with: plantops device add ID")
				case len(devices) == 0:
					a.warn("none of %d devices is offline", len(known))
					return nil
				}
				return table(a.stdout, deviceRows(devices, now))
			})
		},
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "only devices that are not heard of any more, or never were")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func deviceRows(devices []control.DeviceStatus, now time.Time) [][]string {
	rows := [][]string{{"DEVICE", "STATE", "LAST SEEN", "RECEIVED", "STORED", "DUPLICATE", "QUARANTINED", "REFUSED", "PENDING"}}
	for _, d := range devices {
		m := d.Messages
		rows = append(rows, []string{d.ID, deviceState(d), lastSeen(d, now), fmt.Sprint(m.Received), fmt.Sprint(m.Stored),
			fmt.Sprint(m.Duplicate), fmt.Sprint(m.Quarantined), fmt.Sprint(m.Refused), fmt.Sprint(m.Pending)})
	}
	if slices.ContainsFunc(devices, func(d control.DeviceStatus) bool { return d.Source != "" }) {
		rows[0] = append(rows[0], "GATEWAY")
		for i, d := range devices {
			rows[i+1] = append(rows[i+1], gateway(d))
		}
	}
	return rows
}

// latestValue is the newest reading of one metric.
type latestValue struct {
	Metric string         `json:"metric"`
	Value  float64        `json:"value"`
	Time   control.Moment `json:"time"`
}

func newDeviceShow(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show ID",
		Short:             "Show one device: state, message counts, what was refused, newest readings",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeDevices(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.read(cmd.Context(), func(cfg config.Config, db *store.Store) error {
				known, err := db.Device(cmd.Context(), args[0])
				if err != nil {
					return a.deviceHint(cmd.Context(), cfg, err, args[0])
				}
				newest, err := db.Latest(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				latest := make([]latestValue, len(newest))
				for i, r := range newest {
					latest[i] = latestValue{r.Metric, r.Value, control.Moment(r.Time)}
				}
				all, err := db.SkippedFields(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				skipped := control.SkippedFields(all)
				device := control.NewDeviceStatus(known, cfg.Ingest.OfflineAfter, a.now()).
					WithRefusals(inMemory(cmd.Context(), a, cfg, (*control.Client).Refusals)).WithUnread(inMemory(cmd.Context(), a, cfg, (*control.Client).Unread))
				if asJSON {
					return printJSON(a.stdout, struct {
						control.DeviceStatus
						Latest        []latestValue          `json:"latest"`
						SkippedFields []control.SkippedField `json:"skipped_fields"`
					}{device, latest, skipped})
				}
				return printDevice(a, device, latest, skipped)
			})
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func printDevice(a *app, d control.DeviceStatus, latest []latestValue, skipped []control.SkippedField) error {
	now := a.now()
	rows := [][]string{
		{"device", d.ID},
		{"state", deviceState(d)},
		{"created", local(d.Created)},
		{"last seen", local(d.LastSeen) + " (" + lastSeen(d, now) + ")"},
		{"last reading", local(d.LastReading)},
		{"messages", fmt.Sprintf("%d stored, %d duplicate, %d quarantined, %d refused",
			d.Messages.Stored, d.Messages.Duplicate, d.Messages.Quarantined, d.Messages.Refused)},
	}
	if d.Source != "" {
		rows = append(rows, []string{"gateway", gateway(d) + ", source " + d.Source})
	}
	for _, r := range d.Refusals {
		rows = append(rows, []string{"refused", refusalText(r, now)})
	}
	if d.Dropped > 0 {
		rows = append(rows, []string{"given up", count(d.Dropped, "reading") + ", which the device could not keep"})
	}
	for _, f := range skipped {
		rows = append(rows, []string{"not read", skippedText(f, now)})
	}
	if d.Unread != nil {
		rows = append(rows, []string{"nobody reads", unreadText(*d.Unread, now)})
	}
	for _, l := range latest {
		rows = append(rows, []string{l.Metric, fmt.Sprintf("%s at %s", number(l.Value), local(l.Time))})
	}
	return table(a.stdout, rows)
}

// completeDevices completes device ids on the command line.
func completeDevices(a *app) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
		var ids []string
		err := a.read(cmd.Context(), func(_ config.Config, db *store.Store) error {
			devices, err := db.Devices(cmd.Context())
			for _, d := range devices {
				if strings.HasPrefix(d.ID, prefix) && !slices.Contains(given, d.ID) {
					ids = append(ids, d.ID)
				}
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}
