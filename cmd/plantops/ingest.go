package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/broker/topic"
	"github.com/plantops/plantops/cmd/plantops/listing"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/ingest/source"
	"github.com/plantops/plantops/store"
)

func newIngest(a *app) *cobra.Command {
	return group(&cobra.Command{Use: "ingest", Short: "See what becomes of messages"}, newIngestTest(a))
}

func newIngestTest(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "test TOPIC PAYLOAD",
		Short: "Say what would become of a message; exit code 0 when it would be stored, else 1",
		Long: `Say what would become of a message: its source, its device, its readings with their times, and what could not be
read. It needs the configuration only, no server, and stores nothing. A PAYLOAD of - is read from standard input.`,
		Example: `  plantops ingest test devices/bed-1/telemetry '{"temperature":22.5}'
  plantops ingest test tele/kitchen/SENSOR '{"Time":"2026-11-30T08:00:00","AM2301":{"Temperature":21.5}}'`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			loaded, err := a.load()
			if err != nil {
				return err
			}
			sources, err := compileSources(loaded)
			if err != nil {
				return err
			}
			if topic.Check(args[0], topic.MaxBytes) == topic.ErrInvalid {
				return usageError(cmd, fmt.Errorf("%.80q cannot be the topic of a message", args[0]))
			}
			payload := []byte(args[1])
			if args[1] == "-" && a.stdin != nil {
				if payload, err = io.ReadAll(a.stdin); err != nil {
					return fmt.Errorf("read the payload: %w", err)
				}
			}
			fate := fateOf(loaded.Config, sources, ingest.Arrived{Topic: args[0], Payload: payload, Time: a.now().UnixMilli()})
			if asJSON {
				err = printJSON(a.stdout, fate)
			} else {
				err = printFate(a, fate)
			}
			if err == nil && !fate.Stored {
				err = errors.New("nothing of it would be stored")
			}
			return err
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// fate is what would become of a message.
type fate struct {
	Stored   bool                   `json:"stored"`
	Becomes  string                 `json:"becomes"` // readings, heartbeat, offline, nothing, quarantine or unread
	Source   string                 `json:"source,omitempty"`
	Device   string                 `json:"device,omitempty"`
	Reason   string                 `json:"reason,omitempty"` // of the quarantine
	Meant    string                 `json:"meant,omitempty"`  // a topic that somebody reads
	Readings []fateReading          `json:"readings"`
	Skipped  []control.SkippedField `json:"skipped"`
}

type fateReading struct {
	Time       control.Moment `json:"time"`
	TimeSource string         `json:"time_source"`
	Given      string         `json:"given,omitempty"` // a time of the device that was not used
	Metric     string         `json:"metric"`
	Value      float64        `json:"value"`
}

func fateOf(cfg config.Config, sources *source.Set, a ingest.Arrived) fate {
	f := fate{Readings: []fateReading{}, Skipped: []control.SkippedField{}}
	topics := subscribedTopics(cfg, sources)
	read := slices.ContainsFunc(topics, func(filter string) bool {
		bare, err := topic.Unshare(filter)
		return err == nil && topic.Matches(bare, a.Topic)
	})
	if !read {
		f.Becomes, f.Meant = "unread", topic.Meant(a.Topic, topics)
		return f
	}
	m := ingest.DecodeWith(sources, a)
	f.Source, f.Device = m.Behind.Source, m.Device
	for _, s := range m.Skipped {
		f.Skipped = append(f.Skipped, control.SkippedField{Field: s.Field, Text: s.Text})
	}
	if err := store.CheckID(m.Device); err != nil && m.Kind != store.Bad && m.Kind != store.Nothing {
		m.Kind, m.Reason = store.Bad, err.Error()
	}
	switch m.Kind {
	case store.Telemetry:
		f.addReadings(store.Part{Time: m.Time, TimeSource: m.TimeSource, Given: m.Given, Values: m.Values})
		for _, p := range m.More {
			f.addReadings(p)
		}
		if f.Becomes = "readings"; len(f.Readings) == 0 {
			f.Becomes = "heartbeat"
		}
		f.Stored = true
	case store.Heartbeat:
		f.Becomes, f.Stored = "heartbeat", true
	case store.Farewell:
		f.Becomes, f.Stored = "offline", true
	case store.Nothing:
		f.Becomes = "nothing"
	default:
		f.Becomes, f.Reason = "quarantine", m.Reason
	}
	return f
}

func (f *fate) addReadings(p store.Part) {
	for _, v := range p.Values {
		f.Readings = append(f.Readings, fateReading{control.Moment(p.Time), listing.SourceText(p.TimeSource), p.Given, v.Metric, v.Value})
	}
}

func printFate(a *app, f fate) error {
	rows := [][]string{}
	if f.Source != "" {
		rows = append(rows, []string{"source", f.Source})
	}
	if f.Device != "" {
		rows = append(rows, []string{"device", f.Device})
	}
	becomes := map[string]string{
		"readings":   count(len(f.Readings), "reading"),
		"heartbeat":  "a sign of life, without readings",
		"offline":    "the device is offline",
		"nothing":    "nothing: it is acknowledged and left",
		"quarantine": "an entry in quarantine: " + f.Reason,
		"unread":     "nothing: nobody reads this topic",
	}[f.Becomes]
	if f.Meant != "" {
		becomes += "; did it mean " + f.Meant + "?"
	}
	rows = append(rows, []string{"becomes", becomes})
	for _, r := range f.Readings {
		when := fmt.Sprintf("%s (%s)", local(r.Time), r.TimeSource)
		if r.Given != "" {
			when += fmt.Sprintf(", it gave %q", r.Given)
		}
		rows = append(rows, []string{"reading", r.Metric + " = " + number(r.Value) + " at " + when})
	}
	for _, s := range f.Skipped {
		rows = append(rows, []string{"not read", fmt.Sprintf("%s %q", s.Field, s.Text)})
	}
	return table(a.stdout, rows)
}

// withSource adds --source to "device add": the device runs another program, and may use the topics of that alone.
func withSource(a *app, cmd *cobra.Command) *cobra.Command {
	var name string
	cmd.Flags().StringVar(&name, "source", "", "`SOURCE` of ingest.sources or preset, such as tasmota: the device may use just its topics")
	_ = cmd.RegisterFlagCompletionFunc("source", cobra.FixedCompletions(source.Presets(), cobra.ShellCompDirectiveNoFileComp))
	plain := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("source") {
			return plain(cmd, args)
		}
		for _, other := range []string{"for", "dir", "wait"} {
			if cmd.Flags().Changed(other) {
				return usageError(cmd, fmt.Errorf("--%s is for devices that speak to PlantOps themselves: leave it out with --source", other))
			}
		}
		loaded, err := a.load()
		if err != nil {
			return err
		}
		granted, err := a.grants(cmd, loaded, name, args[0])
		if err != nil {
			return err
		}
		return a.operateExisting(cmd.Context(), func(cfg config.Config, o control.Operator) error {
			password, err := o.AddOtherDevice(cmd.Context(), args[0], granted.Publish, granted.Subscribe)
			if err != nil {
				return a.deviceHint(cmd.Context(), cfg, err, args[0])
			}
			reach, err := o.Contact(cmd.Context())
			if err != nil {
				return err
			}
			given := userCredentials(args[0], password, cfg, reach)
			if host, _ := cmd.Flags().GetString("host"); host != "" {
				given.Host, given.Names = host, nil
			}
			given.DeviceID, given.rules = args[0], &rules{Publish: granted.Publish, Subscribe: granted.Subscribe}
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
				return printJSON(a.stdout, given)
			}
			return printCredentials(a, given, "Device "+args[0]+" can connect, for source "+name+".")
		})
	}
	return cmd
}

// grants are what the device of a source needs. A preset that the configuration lacks has them too: it can be added later.
func (a *app) grants(cmd *cobra.Command, loaded config.Loaded, name, device string) (source.Grant, error) {
	sources, err := compileSources(loaded)
	if err != nil {
		return source.Grant{}, err
	}
	if !slices.Contains(sources.Names(), name) {
		preset, err := source.Compile([]source.Config{{Preset: name}})
		if err != nil {
			return source.Grant{}, usageError(cmd, fmt.Errorf("there is no source %q in ingest.sources, and no preset of that name; presets are %s",
				name, strings.Join(source.Presets(), ", ")))
		}
		a.warn("ingest.sources does not have %s yet: what the device sends is not read until it does, and the server was started again", name)
		sources = preset
	}
	granted, err := sources.Grants(name, device)
	if err != nil {
		return source.Grant{}, usageError(cmd, err)
	}
	return granted, nil
}
