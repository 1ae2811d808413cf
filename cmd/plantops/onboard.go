package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/cmd/plantops/snippet"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/deploy/esp32"
	"github.com/plantops/plantops/store"
)

// This file gets a device going: credentials, what to paste into it, and the word of its first reading.

const (
	firstReadingPatience = 10 * time.Minute // of --wait without a time
	firstReadingPoll     = 250 * time.Millisecond

	// The sketch that is printed without --for.
	defaultForm = "arduino"
)

// onboarding is what the command line says about it.
type onboarding struct {
	form, dir, host string
	wait            time.Duration
	asJSON          bool
}

// secretMaker gives a device that takes a form the secret that it connects with.
type secretMaker func(op control.Operator, ctx context.Context, id, form string) (secret string, err error)

// discoveryTopics are where a Tasmota device announces itself at each of its connections, whatever SetOption19 says
// (xdrv_12_discovery.ino). Who is refused that is disconnected, and would be again at each connection.
const discoveryTopics = "tasmota/discovery/#"

// addDevice is the secretMaker of a new device.
func addDevice(op control.Operator, ctx context.Context, id, form string) (string, error) {
	if form == "tasmota" {
		own := []string{"devices/%u/#"}
		return op.AddOtherDevice(ctx, id, append(own, discoveryTopics), own)
	}
	return op.AddDevice(ctx, id)
}

// rotateDevice is the secretMaker of a device that is registered already.
func rotateDevice(op control.Operator, ctx context.Context, id, _ string) (string, error) {
	return op.RotateDevice(ctx, id)
}

// warnOfTopics says when a device will be disconnected for what it publishes beside its readings: it was registered for another form.
func (a *app) warnOfTopics(ctx context.Context, cfg config.Config, form, id string) {
	if form != "tasmota" {
		return
	}
	db, err := a.openReadOnly(ctx, cfg)
	if err != nil {
		return // it is only a hint
	}
	defer db.Close()
	if account, known := db.Account(id); known && !slices.Contains(account.Publish, discoveryTopics) {
		a.warn("%s may not publish to %s, where Tasmota announces itself each time that it connects, and is disconnected for it: "+
			"plantops device remove %s, then plantops device add %s --for tasmota; its readings stay", id, discoveryTopics, id, id)
	}
}

// formsHelp lists the forms for --help.
func formsHelp() string {
	var out strings.Builder
	for _, name := range snippet.Forms() {
		fmt.Fprintf(&out, "  %-12s %s\n", name, snippet.About(name))
	}
	return out.String()
}

func onboardCommand(a *app, use, short string, secret secretMaker) *cobra.Command {
	var o onboarding
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return usageError(cmd, err)
			}
			if err := store.CheckID(args[0]); err != nil {
				return err
			}
			var before store.Device
			var used config.Config
			err := a.operateExisting(cmd.Context(), func(cfg config.Config, op control.Operator) (err error) {
				used = cfg
				before, err = a.onboard(cmd.Context(), cfg, op, o, args[0], secret)
				return err
			})
			if err != nil || o.wait == 0 {
				return err
			}
			return a.awaitFirstReading(cmd.Context(), used, before, o.wait)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.form, "for", "", "print what to paste into the device: "+strings.Join(snippet.Forms(), ", "))
	flags.StringVar(&o.dir, "dir", "", "write it into files in the folder `DIR` instead")
	flags.StringVar(&o.host, "host", "", "name or address by which the device reaches this machine (default: certs.extra_names, else its address)")
	flags.DurationVar(&o.wait, "wait", 0, "wait for the first reading, so long at most (without a time: "+firstReadingPatience.String()+")")
	flags.Lookup("wait").NoOptDefVal = firstReadingPatience.String()
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(snippet.Forms(), cobra.ShellCompDirectiveNoFileComp))
	addJSONFlag(cmd, &o.asJSON)
	return cmd
}

// check finds what is wrong with the flags alone.
func (o onboarding) check() error {
	switch {
	case o.form != "" && snippet.About(o.form) == "":
		err := fmt.Errorf("--for %s: use %s", o.form, strings.Join(snippet.Forms(), ", "))
		return didYouMean(err, "--for ", o.form, snippet.Forms())
	case o.dir != "" && o.form == "":
		return errors.New("--dir needs --for, which says what to write")
	case o.wait < 0:
		return fmt.Errorf("--wait=%s: use a time such as 10m", o.wait)
	case strings.ContainsAny(o.host, "/ \t\n\"'\\@") || strings.Contains(o.host, ":") && net.ParseIP(o.host) == nil:
		return fmt.Errorf("--host %q: use a name or an address, without port or scheme", o.host)
	}
	return nil
}

// onboard checks everything that could go wrong, gives the device its secret and prints it. It returns the device as it was before.
func (a *app) onboard(ctx context.Context, cfg config.Config, op control.Operator, o onboarding, id string,
	secret secretMaker) (store.Device, error) {
	reach, err := op.Contact(ctx)
	if err != nil {
		return store.Device{}, err
	}
	given := deviceCredentials(id, "", cfg, reach)
	if o.host != "" {
		given.Host, given.Names = o.host, nil
	}
	if o.form != "" {
		if err := checkForm(o, given, reach); err != nil {
			return store.Device{}, err
		}
	}
	before := store.Device{ID: id}
	if o.wait > 0 {
		if _, live := op.(*control.Client); !live {
			return before, control.KindOf(control.ErrUnreachable, control.WithHint(
				fmt.Errorf("no server is running in %s, so no reading can come", cfg.DataDir), `start it with "plantops serve", or leave --wait out`))
		}
		if known, err := a.deviceNow(ctx, cfg, id); err == nil {
			before = known
		}
	}
	if given.Password, err = secret(op, ctx, id, o.form); err != nil {
		return before, a.deviceHint(ctx, cfg, err, id)
	}
	a.warnOfTopics(ctx, cfg, o.form, id)
	a.warnOfHost(given, reach, o.host != "")
	return before, a.hand(o, given, reach)
}

// checkForm says before anything is made why the form could not be written.
func checkForm(o onboarding, given credentials, reach control.Contact) error {
	if reach.TLS == "" && reach.TCP == "" {
		return control.WithHint(errors.New("no listener that a device could connect to is enabled"),
			"enable listeners.tls, or make an account in the broker at mqtt.host")
	}
	if given.TLS && given.CA == "" {
		return control.WithHint(errors.New("there is no CA certificate yet that the device could trust"),
			`"plantops certs init" or the first "plantops serve" makes it`)
	}
	if err := snippet.Check(o.form, facts(given, reach)); err != nil {
		return fmt.Errorf("--for %s: %w", o.form, err)
	}
	if o.dir == "" {
		return nil
	}
	file, err := snippet.Write(o.form, facts(given, reach))
	if err != nil {
		return err
	}
	if path := filepath.Join(o.dir, filepath.FromSlash(file.Name)); exists(path) {
		return control.WithHint(fmt.Errorf("%s exists already, and is not overwritten", path), "name another --dir, or move the file away")
	}
	return nil
}

func facts(c credentials, reach control.Contact) snippet.Facts {
	return snippet.Facts{Device: c.DeviceID, Password: c.Password, Host: c.Host, Port: c.Port, Topic: c.Topic, CA: c.CA, Servers: reach.Servers}
}

// hand prints or writes what the device needs.
func (a *app) hand(o onboarding, given credentials, reach control.Contact) error {
	said := "Device " + given.DeviceID + " can connect."
	if o.form == "" {
		if o.asJSON {
			return printJSON(a.stdout, given)
		}
		return a.printDeviceCredentials(given, reach, said)
	}
	file, err := snippet.Write(o.form, facts(given, reach))
	if err != nil {
		return err
	}
	given.Snippet = file.Text
	if o.dir != "" {
		path, err := writeNew(o.dir, file)
		if err != nil {
			// The password would be lost with the file.
			return errors.Join(err, printJSON(a.stdout, given))
		}
		a.warn("wrote %s; the password is in it", path)
		if o.form == "arduino" {
			if err := a.writeLibrary(o.dir); err != nil {
				return errors.Join(err, printCredentials(a, given, said))
			}
		}
	}
	switch {
	case o.asJSON:
		return printJSON(a.stdout, given)
	case o.dir != "":
		return printCredentials(a, given, said)
	}
	a.warn("%s Its password is shown only this once.", said)
	_, err = fmt.Fprint(a.stdout, file.Text)
	return err
}

// writeNew writes a file that is not there yet, for its owner alone: there is a password in it.
func writeNew(dir string, f snippet.File) (string, error) {
	path := filepath.Join(dir, filepath.FromSlash(f.Name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return path, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return path, err
	}
	_, err = file.WriteString(f.Text)
	return path, errors.Join(err, file.Close())
}

// writeLibrary writes the library that the sketch uses into the folder in which the Arduino IDE has its sketches. An older copy
// of it is written over, file by file.
func (a *app) writeLibrary(dir string) error {
	to := filepath.Join(dir, "libraries", "PlantOps")
	library := esp32.Library()
	err := fs.WalkDir(library, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(library, path)
		if err != nil {
			return err
		}
		file := filepath.Join(to, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		return os.WriteFile(file, text, 0o644)
	})
	if err == nil {
		a.warn("wrote the library that it uses to %s", to)
	}
	return err
}

// printDeviceCredentials ends with a sketch to paste, unless the CA that it would trust does not exist yet.
func (a *app) printDeviceCredentials(given credentials, reach control.Contact, said string) error {
	if given.Port == 0 {
		a.warn("no listener for devices is enabled here: these credentials are for the embedded broker only")
	}
	if err := printCredentials(a, given, said); err != nil {
		return err
	}
	if given.TLS && given.CA == "" {
		a.warn(`there is no CA certificate yet: "plantops certs init" or the first "plantops serve" makes it`)
		return nil
	}
	sketch, err := snippet.Write(defaultForm, facts(given, reach))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "\n%s\nSketch for an ESP32 (Arduino); others with --for:\n\n%s", given.CA, sketch.Text)
	return err
}

// warnOfHost says when devices will hardly reach the host that is printed, or refuse what they find there.
func (a *app) warnOfHost(given credentials, reach control.Contact, chosen bool) {
	ip := net.ParseIP(given.Host)
	switch {
	case reach.TLS == "" && reach.TCP == "":
		return
	case strings.EqualFold(given.Host, "localhost") || ip != nil && ip.IsLoopback():
		a.warn("the host %q is this machine's own loopback, which no other device reaches: say --host NAME, or set certs.extra_names; "+
			"the listener may be bound to it as well (listeners.tls.address)", given.Host)
	case !chosen && ip != nil && a.inContainer():
		a.warn("the host %s is the address of a container, which devices outside may not reach: say --host with the address of the machine "+
			"that it runs on, or set certs.extra_names", given.Host)
	}
	if name, wrong := notCovered(given, reach); wrong {
		a.warn("the server's certificate does not cover %q, so devices would refuse it: add it to certs.extra_names (PLANTOPS_CERTS_EXTRA_NAMES) "+
			"and restart the server; \"plantops certs show\" lists what it covers", name)
	}
}

// notCovered reports whether no certificate of the server is for the host.
func notCovered(given credentials, reach control.Contact) (string, bool) {
	some := false
	for rest := []byte(reach.Servers); given.TLS; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue
		}
		if some = true; c.VerifyHostname(given.Host) == nil {
			return "", false
		}
	}
	return given.Host, some
}

// inContainer reports whether this process is in a container, as container engines say it.
func (a *app) inContainer() bool {
	return exists("/.dockerenv") || exists("/run/.containerenv") ||
		slices.ContainsFunc(a.environ, func(v string) bool { return strings.HasPrefix(v, "container=") && v != "container=" })
}

// deviceNow is the device as the database has it.
func (a *app) deviceNow(ctx context.Context, cfg config.Config, id string) (store.Device, error) {
	db, err := a.openReadOnly(ctx, cfg)
	if err != nil {
		return store.Device{}, err
	}
	defer db.Close()
	return db.Device(ctx, id)
}

// awaitFirstReading returns when a reading has come that was not there before, and says on the way why none comes.
func (a *app) awaitFirstReading(ctx context.Context, cfg config.Config, before store.Device, patience time.Duration) error {
	began, told := control.Moment(a.now().UnixMilli()), map[string]bool{} // before anybody is told to send
	a.warn("waiting for the first reading of %s …", before.ID)
	db, err := a.openReadOnly(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	late := time.NewTimer(patience)
	defer late.Stop()
	tick := time.NewTicker(firstReadingPoll)
	defer tick.Stop()
	for {
		now, err := db.Device(ctx, before.ID)
		switch {
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return err
		case now.LastReading != before.LastReading:
			return a.sayFirstReading(ctx, db, before.ID)
		case now.Counts.Quarantined > before.Counts.Quarantined:
			before.Counts.Quarantined = now.Counts.Quarantined
			a.warn(`a message of %s was no reading; "plantops quarantine list" says why`, before.ID)
		}
		for _, r := range inMemory(ctx, a, cfg, (*control.Client).Refusals)[before.ID] {
			if r.Last >= began && !told[r.Reason] {
				told[r.Reason] = true
				a.warn("refused to %s: %s", before.ID, refusalText(r, a.now()))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return control.WithHint(fmt.Errorf("no reading of %s came within %s", before.ID, patience),
				fmt.Sprintf("it can still come; what was refused to the device: plantops device show %s", before.ID))
		case <-tick.C:
		}
	}
}

func (a *app) sayFirstReading(ctx context.Context, db *store.Store, id string) error {
	newest, err := db.Latest(ctx, id)
	if err != nil {
		return err
	}
	var values []string
	for _, r := range newest {
		values = append(values, r.Metric+" "+number(r.Value))
	}
	a.warn("✓ the first reading of %s is stored: %s", id, strings.Join(values, ", "))
	return nil
}

// firstReadings stands between the subscriber and the store and says once of each device that its first reading is stored:
// whoever has just flashed one looks at the log. Append is called by one goroutine.
type firstReadings struct {
	*store.Store
	log   *slog.Logger
	heard map[string]bool // devices that have a reading
}

func newFirstReadings(ctx context.Context, db *store.Store, log *slog.Logger) (*firstReadings, error) {
	known, err := db.Devices(ctx)
	if err != nil {
		return nil, err
	}
	f := &firstReadings{db, log, map[string]bool{}}
	for _, d := range known {
		if d.LastReading != 0 {
			f.heard[d.ID] = true
		}
	}
	return f, nil
}

// Append implements ingest.Sink.
func (f *firstReadings) Append(ctx context.Context, batch []store.Message, outcomes []store.Outcome) ([]store.Outcome, error) {
	all, err := f.Store.Append(ctx, batch, outcomes)
	if err != nil {
		return all, err
	}
	for i, outcome := range all[len(outcomes):] {
		if m := &batch[i]; outcome == store.Stored && m.Kind == store.Telemetry && len(m.Values) > 0 && !f.heard[m.Device] {
			f.heard[m.Device] = true
			f.log.Info("the first reading of a device is stored", "device", m.Device, "topic", m.Topic, "metrics", len(m.Values))
		}
	}
	return all, nil
}

// hasDevices reports whether anything could send.
func (f *firstReadings) hasDevices(ctx context.Context) bool {
	known, err := f.Devices(ctx)
	for _, d := range known {
		if d.Registered {
			return true
		}
	}
	return err != nil
}
