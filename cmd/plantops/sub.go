package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/plantops/plantops/broker/topic"
	"github.com/plantops/plantops/cmd/plantops/mqttcli"
	"github.com/plantops/plantops/control"
	"github.com/spf13/cobra"
)

type subFlags struct {
	mqttFlags
	filters, filterOut, unsubscribe []string
	verbose, noEOL, asJSON          bool
	format                          string
	count                           int
	timeout                         string
	noRetained, retainedOnly, exit  bool

	within time.Duration // timeout
}

func newSub(a *app) *cobra.Command {
	var f subFlags
	cmd := &cobra.Command{
		Use:   "sub [FILTER...]",
		Short: "Show what is published at the running server, or at any MQTT broker",
		Long: `Subscribe and print messages until Ctrl-C, with the flags of mosquitto_sub. Without -h it is the server of this data
directory: with TLS where it has that, and with an account that may read everything. On a terminal what it would obey is not
sent to it; otherwise payloads are printed byte for byte. When the connection is lost it is made again.`,
		Example: `  plantops sub -v '#'                        everything, with its topic
  plantops sub -C 1 -W 10 devices/bed-1/telemetry
  plantops sub -F '%I %t %p' -t 'home/#' -T 'home/attic/#'
  plantops sub -v '$SYS/#'`,
		RunE: func(cmd *cobra.Command, filters []string) error {
			f.filters = append(filters, f.filters...)
			if err := f.check(); err != nil {
				return usageError(cmd, err)
			}
			return a.sub(cmd.Context(), &f)
		},
	}
	f.add(cmd, 0)
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.filters, "topic", "t", nil, "filter; can be given more than once")
	flags.StringArrayVarP(&f.filterOut, "filter-out", "T", nil, "leave out the topics that this filter matches")
	flags.StringArrayVarP(&f.unsubscribe, "unsubscribe", "U", nil, "end this subscription of the session first")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "print topics too")
	flags.BoolVarP(&f.noEOL, "no-eol", "N", false, "print no line break after a message")
	flags.StringVarP(&f.format, "format", "F", "", "print %t topic, %p payload, %x and %X in hex, %l its length, %j and %J JSON, %q QoS, %r retained, %I and %U time, %m packet id, %d sent again, %C %D %E %F %P %R %S properties of MQTT 5")
	flags.IntVarP(&f.count, "count", "C", 0, "end after so many messages")
	flags.StringVarP(&f.timeout, "timeout", "W", "", "end after so many seconds, or a time such as 2m; with --count fewer messages are a failure")
	flags.BoolVarP(&f.noRetained, "no-retained", "R", false, "leave out retained messages")
	flags.BoolVar(&f.retainedOnly, "retained-only", false, "leave out all others")
	flags.BoolVarP(&f.exit, "exit-after-subscribe", "E", false, "end when the broker has the subscriptions")
	addJSONFlag(cmd, &f.asJSON)
	return cmd
}

func (f *subFlags) check() error {
	for _, filter := range slices.Concat(f.filters, f.filterOut, f.unsubscribe) {
		if err := topic.CheckFilter(filter, topic.Levels(filter)); err != nil {
			return fmt.Errorf("%q: %w", filter, err)
		}
	}
	if f.timeout != "" {
		var err error
		if f.within, err = time.ParseDuration(f.timeout); err != nil {
			f.within, err = time.ParseDuration(f.timeout + "s")
		}
		if err != nil || f.within <= 0 {
			return fmt.Errorf("--timeout %s: use a number of seconds, or a time such as 2m", f.timeout)
		}
	}
	switch {
	case len(f.filters)+len(f.unsubscribe) == 0:
		return errors.New(`what is to be shown? give a filter such as '#'`)
	case f.count < 0:
		return fmt.Errorf("--count %d: use a positive number", f.count)
	case f.noRetained && f.retainedOnly:
		return errors.New("use --no-retained or --retained-only, not both")
	case f.asJSON && f.format != "":
		return errors.New("use --json or --format, not both")
	}
	if err := mqttcli.CheckFormat(f.format); err != nil {
		return fmt.Errorf("--format %w", err)
	}
	return f.mqttFlags.check()
}

// sub prints messages until it has enough, its time is over, or ctx ends.
func (a *app) sub(ctx context.Context, f *subFlags) error {
	terminal := isTerminal(a.stdout)
	printer := mqttcli.Printer{W: a.stdout, Format: f.format, Topics: f.verbose, NoEOL: f.noEOL, Terminal: terminal,
		Colours: terminal && !slices.ContainsFunc(a.environ, noColor), Now: a.now}
	if f.asJSON {
		printer.Format = "%j"
	}
	working, cancel := ctx, context.CancelFunc(func() {})
	if f.within > 0 {
		working, cancel = context.WithTimeout(ctx, f.within)
	}
	defer cancel()
	left := f.count
	for again := false; ; again = true {
		err := a.subOnce(working, f, &printer, &left)
		switch {
		case ctx.Err() == nil && working.Err() != nil && left > 0:
			return fmt.Errorf("only %d of %s came within %s", f.count-left, count(f.count, "message"), f.within)
		case ctx.Err() == nil && working.Err() != nil:
			return nil // the time is over
		case ctx.Err() != nil:
			return nil // Ctrl-C is how it ends
		case err == nil || !worthAnother(err, again):
			return err
		}
		a.warn("%s; connecting again", err)
		if !pause(working, mqttAgain) {
			continue // and says why
		}
	}
}

// worthAnother says that another connection may do better. The first one that fails is a mistake of somebody's.
func worthAnother(err error, again bool) bool {
	return errors.As(err, new(connectionLost)) || again && errors.Is(err, control.ErrUnreachable)
}

// connectionLost is the end of a connection that was used, for no reason of this client's.
type connectionLost struct{ error }

// subOnce is sub for one connection. It returns nil when there is enough.
func (a *app) subOnce(ctx context.Context, f *subFlags, printer *mqttcli.Printer, left *int) error {
	conn, err := f.dial(ctx, a)
	if err != nil {
		return err
	}
	defer conn.Close() // what was printed is printed
	var filters []mqttcli.Filter
	for _, filter := range f.filters {
		filters = append(filters, mqttcli.Filter{Filter: filter, QoS: byte(f.qos)})
	}
	err = conn.Listen(ctx, f.unsubscribe, filters, func() bool { return !f.exit }, func(m mqttcli.Message) (more bool, err error) {
		if f.wants(m) {
			err = printer.Print(m)
			*left--
		}
		return f.count == 0 || *left > 0, err
	})
	select {
	case <-conn.Ended():
		return lost(err)
	default:
		return mqttError(err)
	}
}

// lost says what the end of a connection means.
func lost(err error) error {
	var refused mqttcli.Refused
	if errors.As(err, &refused) && !errors.Is(err, mqttcli.ErrUnavailable) {
		return mqttError(err)
	}
	return connectionLost{err}
}

func (f *subFlags) wants(m mqttcli.Message) bool {
	if m.Retain && f.noRetained || !m.Retain && f.retainedOnly {
		return false
	}
	return !slices.ContainsFunc(f.filterOut, func(filter string) bool { return topic.Matches(filter, m.Topic) })
}
