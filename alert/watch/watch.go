// Package watch runs package alert: it looks every some seconds at what the store has in memory, at nothing more often, so that readings
// cost nothing more than before; keeps what the looks come to, in one transaction with the messages; and takes orders of people. Sending
// is package alert/notify's business.
package watch

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/alert"
	"github.com/plantops/plantops/alert/notify"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/outbox"
)

const (
	lookEvery   = 10 * time.Second // and no device's interval is learned finer
	faultsEvery = time.Minute
	blindTime   = 5 * time.Minute // longer, and somebody should look at the box

	learnFirst = 15 * time.Minute // after a start
	learnEvery = 6 * time.Hour
	stopTime   = 2 * time.Second

	logEvery = time.Minute
)

// Source is what is looked at.
type Source interface {
	// Devices are those that are watched.
	Devices(ctx context.Context) ([]alert.Device, error)
	// Latest is the newest reading of each metric of each device.
	Latest(ctx context.Context) ([]history.Reading, error)
	Plan(ctx context.Context) (*garden.Plan, error)
	// Faults are what is wrong with the box.
	Faults(ctx context.Context) ([]alert.Fault, error)
}

// Keeper is where alerts are kept.
type Keeper interface {
	Load(ctx context.Context) (outbox.Kept, error)
	Commit(ctx context.Context, c outbox.Change) error
	Learn(ctx context.Context, learned string) error
	Alerts(ctx context.Context, limit int) ([]outbox.Alert, error)
	Prune(ctx context.Context, channels []string) error
	Use(ctx context.Context, key string) (outbox.Key, error)
}

// Channel is where messages go.
type Channel struct {
	Name    string
	Buttons bool // its messages get keys
}

// Options say what is watched.
type Options struct {
	Rules    alert.Rules
	Source   Source
	Keeper   Keeper
	Channels []Channel
	Waiting  func()           // is called when something waits in the outbox
	Now      func() time.Time // in the zone of the quiet hours
	Doubt    func() string    // why Now is not to be trusted; "": it is
	Every    time.Duration    // between looks; 0: ten seconds. At most a minute
	Log      *slog.Logger
}

// Watcher looks. Its methods are safe for concurrent use.
type Watcher struct {
	options Options
	began   time.Time

	open   atomic.Pointer[[]alert.Alert] // those that last, for who must not wait for a commit
	worked atomic.Int64                  // ns since began, of the last look that came to its end

	mu       sync.Mutex
	machine  *alert.Machine // nil until what an earlier process left could be read
	pending  *outbox.Change // is not kept yet
	looked   time.Duration  // since began
	faulted  time.Duration
	devices  []alert.Device // of the look before
	readings []history.Reading
	failing  string
	logged   time.Time
}

// Open goes on where another process ended. What that left may be in a damaged place of the database: then nothing is judged, and Run
// tries again until the store has made its file anew.
func Open(ctx context.Context, o Options) *Watcher {
	if o.Every == 0 {
		o.Every = lookEvery
	}
	w := &Watcher{options: o, began: time.Now()}
	w.open.Store(&[]alert.Alert{})
	if err := w.load(ctx); err != nil {
		w.report(err)
	}
	return w
}

func (w *Watcher) load(ctx context.Context) error {
	if w.machine != nil {
		return nil
	}
	o := w.options
	kept, err := o.Keeper.Load(ctx)
	if err != nil {
		return err
	}
	state, open, learned := alert.State{Box: rand.Text()}, []alert.Alert{}, []alert.Learned{}
	if kept.State != "" {
		if err := json.Unmarshal([]byte(kept.State), &state); err != nil {
			o.Log.Error("the state of alerts cannot be read: it begins anew", "err", err)
			state = alert.State{Box: rand.Text()}
		}
	}
	for _, one := range kept.Open {
		var a alert.Alert
		if err := json.Unmarshal([]byte(one.Body), &a); err != nil {
			o.Log.Error("an alert cannot be read", "alert", one.ID, "err", err)
			continue
		}
		open = append(open, a)
	}
	state.Alert = max(state.Alert, kept.Last) // the state may be lost
	if kept.Learned != "" {
		if err := json.Unmarshal([]byte(kept.Learned), &learned); err != nil {
			o.Log.Warn("what was learned of devices cannot be read: it is learned anew", "err", err)
			learned = nil
		}
	}
	names := make([]string, len(o.Channels))
	for i, c := range o.Channels {
		names[i] = c.Name
	}
	if err := o.Keeper.Prune(ctx, names); err != nil {
		o.Log.Warn("messages for channels that are gone stay", "err", err)
	}
	w.machine = alert.New(o.Rules, state, open, learned)
	w.show()
	return nil
}

// show is called when the machine has changed.
func (w *Watcher) show() {
	open := w.machine.Open()
	w.open.Store(&open)
}

// Run looks until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	tick := time.NewTicker(w.options.Every)
	defer tick.Stop()
	learn := time.NewTimer(learnFirst)
	defer learn.Stop()
	for {
		if err := w.look(ctx); err != nil && ctx.Err() == nil {
			w.report(err)
		}
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
			defer cancel()
			w.learn(last)
			return nil
		case <-learn.C:
			learn.Reset(learnEvery)
			w.learn(ctx)
		case <-tick.C:
		}
	}
}

// report logs what fails: when it begins, and once a minute.
func (w *Watcher) report(err error) {
	if now := time.Now(); err.Error() != w.failing || now.Sub(w.logged) >= logEvery {
		w.failing, w.logged = err.Error(), now
		w.options.Log.Warn("alerts cannot judge everything; trying again", "err", err)
	}
}

func (w *Watcher) learn(ctx context.Context) {
	w.mu.Lock()
	if w.machine == nil {
		w.mu.Unlock()
		return
	}
	text, err := json.Marshal(w.machine.Learned())
	w.mu.Unlock()
	if err == nil {
		err = w.options.Keeper.Learn(ctx, string(text))
	}
	if err != nil {
		w.options.Log.Warn("cannot keep what was learned for alerts", "err", err)
	}
}

// look looks once. What an earlier look came to is kept first.
func (w *Watcher) look(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.load(ctx); err != nil {
		return err
	}
	if err := w.commit(ctx); err != nil {
		return err
	}
	l, err := w.see(ctx)
	if err != nil {
		return err
	}
	if err := w.keep(ctx, w.machine.Step(l)); err != nil {
		return err
	}
	w.worked.Store(int64(time.Since(w.began)))
	return nil
}

// Well returns an error when nothing has been judged for some minutes. It waits for nothing.
func (w *Watcher) Well(context.Context) error {
	if since := time.Since(w.began) - time.Duration(w.worked.Load()); since > blindTime {
		return fmt.Errorf("alerts have judged nothing for %s; the log says why", since.Round(time.Second))
	}
	return nil
}

// see gathers a look.
func (w *Watcher) see(ctx context.Context) (l alert.Look, err error) {
	s := w.options.Source
	at := time.Since(w.began)
	l = alert.Look{Now: w.options.Now(), Unsure: w.options.Doubt(), Passed: at - w.looked}
	if l.Devices, err = s.Devices(ctx); err != nil {
		return l, err
	}
	if l.Readings, err = w.latest(ctx, l.Devices); err != nil {
		return l, err
	}
	if l.Plan, err = s.Plan(ctx); err != nil {
		return l, err
	}
	if w.faulted == 0 || at-w.faulted >= faultsEvery {
		w.faulted = at
		if l.Faults, err = s.Faults(ctx); err == nil {
			l.Looked = true
		} else { // what cannot be looked at keeps nobody from judging the rest
			w.report(fmt.Errorf("what is wrong with the box: %w", err))
			l.Faults = nil
		}
	}
	w.looked = at
	return l, nil
}

// latest reads anew when something was heard of a device.
func (w *Watcher) latest(ctx context.Context, devices []alert.Device) (list []history.Reading, err error) {
	same := len(devices) == len(w.devices)
	for i := 0; same && i < len(devices); i++ {
		same = devices[i] == w.devices[i]
	}
	if same {
		return w.readings, nil
	}
	if list, err = w.options.Source.Latest(ctx); err == nil {
		w.devices, w.readings = devices, list
	}
	return list, err
}

// keep keeps what a step came to. What fails is kept later.
func (w *Watcher) keep(ctx context.Context, c alert.Changes) error {
	if c.Empty() {
		return nil
	}
	w.show()
	change := &outbox.Change{}
	if c.Kept {
		text, err := json.Marshal(w.machine.State())
		if err != nil {
			return err
		}
		change.State = string(text)
	}
	for i := range c.Alerts {
		a := &c.Alerts[i]
		text, err := json.Marshal(a)
		if err != nil {
			return err
		}
		change.Alerts = append(change.Alerts, outbox.Alert{ID: a.ID, Opened: a.Opened, Closed: a.Closed, Body: string(text)})
	}
	for i := range c.Messages {
		if err := w.address(change, &c.Messages[i]); err != nil {
			return err
		}
	}
	w.pending = change
	return w.commit(ctx)
}

// address makes an entry for each channel.
func (w *Watcher) address(change *outbox.Change, m *alert.Message) error {
	for _, c := range w.options.Channels {
		e := notify.Envelope{Message: *m}
		if c.Buttons && len(m.Notices) == 1 && m.Notices[0].What != alert.Ends {
			for _, action := range []string{notify.Acknowledge, notify.Snooze} {
				key := outbox.NewKey(m.Notices[0].Alert.ID, action)
				change.Keys = append(change.Keys, key)
				e.Keys = append(e.Keys, notify.Key{Action: action, Text: key.Text})
			}
		}
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		change.Messages = append(change.Messages, outbox.Entry{Channel: c.Name, Message: m.ID, Body: string(text)})
	}
	return nil
}

// commit keeps what is pending.
func (w *Watcher) commit(ctx context.Context) error {
	if w.pending == nil {
		return nil
	}
	if err := w.options.Keeper.Commit(ctx, *w.pending); err != nil {
		return err
	}
	waits := len(w.pending.Messages) > 0
	w.pending = nil
	if waits && w.options.Waiting != nil {
		w.options.Waiting()
	}
	return nil
}

// order lets a person change an alert.
func (w *Watcher) order(ctx context.Context, do func(now time.Time) (alert.Changes, error)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.load(ctx); err != nil {
		return err
	}
	if err := w.commit(ctx); err != nil {
		return err
	}
	changes, err := do(w.options.Now())
	if err != nil {
		return err
	}
	return w.keep(ctx, changes)
}

// Acknowledge notes that somebody knows of an alert. The error wraps alert.ErrNotFound.
func (w *Watcher) Acknowledge(ctx context.Context, id int64, by string) error {
	return w.order(ctx, func(now time.Time) (alert.Changes, error) { return w.machine.Acknowledge(id, by, now) })
}

// Snooze has nothing said of an alert for a time. The error wraps alert.ErrNotFound.
func (w *Watcher) Snooze(ctx context.Context, id int64, length time.Duration) error {
	return w.order(ctx, func(now time.Time) (alert.Changes, error) { return w.machine.Snooze(id, length, now) })
}

// List returns at most limit alerts, those that last and those that are over, the newest first.
func (w *Watcher) List(ctx context.Context, limit int) ([]alert.Alert, error) {
	rows, err := w.options.Keeper.Alerts(ctx, limit)
	if err != nil {
		return nil, err
	}
	list := make([]alert.Alert, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal([]byte(row.Body), &list[i]); err != nil {
			list[i] = alert.Alert{ID: row.ID, Opened: row.Opened, Closed: row.Closed, Text: "cannot be read"}
		}
	}
	return list, nil
}

// Open returns the alerts that last, the newest first. It waits for nothing.
func (w *Watcher) Open() []alert.Alert { return *w.open.Load() }

// button is who acknowledges by a button of a message.
const button = "a button of a message"

// Act does what a key lets its holder do, and says what that was. The error wraps outbox.ErrNotFound or alert.ErrNotFound.
func (w *Watcher) Act(ctx context.Context, key string) (did string, err error) {
	used, err := w.options.Keeper.Use(ctx, key)
	if err != nil {
		return "", err
	}
	switch used.Action {
	case notify.Acknowledge:
		return "acknowledged", w.Acknowledge(ctx, used.Alert, button)
	case notify.Snooze:
		return "snoozed for 2 hours", w.Snooze(ctx, used.Alert, notify.SnoozeFor)
	}
	return "", fmt.Errorf("a key for %q: %w", used.Action, outbox.ErrNotFound)
}

// ServeHTTP takes the buttons of messages: a POST to an address that ends with a key. Nobody needs to be logged in for it, the key is
// drawn at random and works once.
func (w *Watcher) ServeHTTP(to http.ResponseWriter, r *http.Request) {
	to.Header().Set("Content-Type", "text/plain; charset=utf-8")
	to.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost {
		to.Header().Set("Allow", http.MethodPost)
		http.Error(to, "a button sends a POST", http.StatusMethodNotAllowed)
		return
	}
	did, err := w.Act(r.Context(), r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])
	switch {
	case errors.Is(err, outbox.ErrNotFound):
		http.Error(to, "this button has been used, or its time is over", http.StatusNotFound)
	case errors.Is(err, alert.ErrNotFound):
		http.Error(to, "this alert is over", http.StatusGone)
	case err != nil:
		w.options.Log.Warn("a button of a message failed", "err", err)
		http.Error(to, "it failed; the log says why", http.StatusInternalServerError)
	default:
		_, _ = fmt.Fprintln(to, did) // who asked may be gone
	}
}
