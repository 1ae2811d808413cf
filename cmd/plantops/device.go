package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

func newDevice(a *app) *cobra.Command {
	return group(&cobra.Command{Use: "device", Short: "Add, list, show and remove devices"},
		newDeviceAdd(a), newDeviceList(a), newDeviceShow(a), newDeviceRotate(a), newDeviceRemove(a))
}

func newDeviceAdd(a *app) *cobra.Command {
	cmd := onboardCommand(a, "add ID", "Register a device and print its credentials, once", control.Operator.AddDevice)
	cmd.Long = `Register a device and print, once, what it needs to connect. With --for it prints what to paste into the device instead:

` + formsHelp() + `
With --wait it waits until the device's first reading is stored.`
	cmd.Example = `  plantops device add bed-1
  plantops device add bed-1 --for esphome > bed-1.yaml
  plantops device add bed-1 --for arduino --dir ~/Arduino --host 192.168.1.10 --wait`
	return cmd
}

func newDeviceRotate(a *app) *cobra.Command {
	cmd := onboardCommand(a, "rotate ID", "Give a device a new password; the old one ends at once", control.Operator.RotateDevice)
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
	return &cobra.Command{
		Use:               "remove ID",
		Short:             "Take a device's access away and end its connection; its readings stay",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeDevices(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.operateExisting(cmd.Context(), func(cfg config.Config, o control.Operator) error {
				if err := o.RemoveDevice(cmd.Context(), args[0]); err != nil {
					return a.deviceHint(cmd.Context(), cfg, err, args[0])
				}
				_, err := fmt.Fprintf(a.stdout, "Device %s can no longer connect. Its readings stay.\n", args[0])
				return err
			})
		},
	}
}

// deviceState is for people.
func deviceState(d control.DeviceStatus) string {
	state := "offline"
	if d.Online {
		state = "online"
	}
	if !d.Registered {
		state += ", not registered"
	}
	return state
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
				now, refused := a.now(), a.refusals(cmd.Context(), cfg)
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
		rows = append(rows, []string{d.ID, deviceState(d), ago(d.LastSeen, now), fmt.Sprint(m.Received), fmt.Sprint(m.Stored),
			fmt.Sprint(m.Duplicate), fmt.Sprint(m.Quarantined), fmt.Sprint(m.Refused), fmt.Sprint(m.Pending)})
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
				device := control.NewDeviceStatus(known, cfg.Ingest.OfflineAfter, a.now()).WithRefusals(a.refusals(cmd.Context(), cfg))
				if asJSON {
					return printJSON(a.stdout, struct {
						control.DeviceStatus
						Latest []latestValue `json:"latest"`
					}{device, latest})
				}
				return printDevice(a, device, latest)
			})
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func printDevice(a *app, d control.DeviceStatus, latest []latestValue) error {
	now := a.now()
	rows := [][]string{
		{"device", d.ID},
		{"state", deviceState(d)},
		{"created", local(d.Created)},
		{"last seen", local(d.LastSeen) + " (" + ago(d.LastSeen, now) + ")"},
		{"last reading", local(d.LastReading)},
		{"messages", fmt.Sprintf("%d stored, %d duplicate, %d quarantined, %d refused",
			d.Messages.Stored, d.Messages.Duplicate, d.Messages.Quarantined, d.Messages.Refused)},
	}
	for _, r := range d.Refusals {
		rows = append(rows, []string{"refused", refusalText(r, now)})
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
