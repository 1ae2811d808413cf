package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Reasons for the quarantine of what a gateway says.
const (
	reasonOtherAccount = "device belongs to another account"
	reasonOtherName    = "another name has this device id"
	reasonAccountsID   = "device id is an account's"
	reasonManyBehind   = "too many devices of the account"
	reasonManyMetrics  = "too many metrics of the account"
)

// Bounds on what one account can make the store keep for ever by speaking for devices.
const (
	maxBehind        = 1000 // devices
	maxBehindMetrics = 4096 // names of metrics that they brought
	maxRawBytes      = 512  // of a device's name at its source
)

type gatewayStatements struct {
	insertGateway, updateGateway *statement
}

func (q *gatewayStatements) all() []compile {
	return []compile{
		{&q.insertGateway, `INSERT INTO gateway (device, source, raw, account) VALUES (?, ?, ?, ?)`},
		{&q.updateGateway, `UPDATE gateway SET account = ? WHERE device = ?`},
	}
}

// rebound is what a device was bound to before the running transaction.
type rebound struct {
	device *device
	before Behind
}

// behindOf finds or creates a device behind a gateway. A reason means that the message is not taken for it: it may be of
// somebody else, and changes nothing about the device. Device "" stands in.
func (s *Store) behindOf(m *Message) (d *device, reason string, err error) {
	from := m.Behind
	from.Raw = rawName(from.Raw)
	nobody := s.state.devices[""]
	accounts := *s.accounts.Load()
	if CheckID(m.Device) != nil {
		return nobody, reasonDeviceID, nil
	}
	if _, taken := accounts[m.Device]; taken {
		return nobody, reasonAccountsID, nil
	}
	d, known := s.state.devices[m.Device]
	if !known && (m.Kind == Nothing || m.Kind == Bad) {
		return nobody, "", nil
	}
	if !known {
		if reason := s.roomBehind(from.Account); reason != "" {
			return nobody, reason, nil
		}
		if d, err = s.createDevice(m.Device); err != nil {
			return nil, "", err
		}
		return d, "", s.bind(d, from)
	}
	_, there := accounts[d.behind.Account]
	switch {
	case d.behind == Behind{}: // what a damaged file has lost, or what an administrator sent for it
		return d, "", s.bind(d, from)
	case d.behind.Source != from.Source || d.behind.Raw != from.Raw:
		return nobody, reasonOtherName, nil
	case from.Account == "" || d.behind.Account == from.Account:
		return d, "", nil
	case d.behind.Account != "" && there:
		return nobody, reasonOtherAccount, nil
	}
	if reason := s.roomBehind(from.Account); reason != "" {
		return nobody, reason, nil
	}
	return d, "", s.bind(d, from)
}

// rawName is a name that the table can hold: names that differ stay different.
func rawName(raw string) string {
	if len(raw) <= maxRawBytes && utf8.ValidString(raw) && !strings.Contains(raw, "\x00") {
		return raw
	}
	digest := sha256.Sum256([]byte(raw))
	return "sha256 " + hex.EncodeToString(digest[:])
}

// roomBehind says why an account may not speak for one more device.
func (s *Store) roomBehind(account string) (reason string) {
	switch {
	case len(s.state.devices) > maxDevices:
		return reasonManyDevices
	case account != "" && len(s.state.behind[account]) >= maxBehind:
		return reasonManyBehind
	}
	return ""
}

// roomForMetrics says whether the account that speaks for a device may bring so many new names.
func (s *Store) roomForMetrics(d *device, fresh int) bool {
	if d.behind.Account == "" || fresh == 0 {
		return true
	}
	for other := range s.state.behind[d.behind.Account] {
		fresh += other.metrics
	}
	return fresh <= maxBehindMetrics
}

// bind says who speaks for a device, inside the running transaction.
func (s *Store) bind(d *device, to Behind) error {
	var err error
	if d.behind == (Behind{}) {
		err = s.w.insertGateway.run(d.id, to.Source, to.Raw, to.Account)
	} else {
		err = s.w.updateGateway.run(to.Account, d.id)
	}
	if err != nil {
		return fmt.Errorf("gateway of device %q: %w", d.name, err)
	}
	s.tx.bound = append(s.tx.bound, rebound{d, d.behind})
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.bind(d, to)
	return nil
}

// bind changes the memory; the caller holds the lock.
func (st *state) bind(d *device, to Behind) {
	delete(st.behind[d.behind.Account], d)
	d.behind = to
	if to == (Behind{}) {
		return
	}
	if st.behind == nil {
		st.behind = make(map[string]map[*device]struct{})
	}
	if st.behind[to.Account] == nil {
		st.behind[to.Account] = make(map[*device]struct{})
	}
	st.behind[to.Account][d] = struct{}{}
}

// unbind takes back what the transaction has bound; the caller holds the lock.
func (s *Store) unbind() {
	for i := len(s.tx.bound) - 1; i >= 0; i-- {
		s.state.bind(s.tx.bound[i].device, s.tx.bound[i].before)
	}
}

// loadGateways tells devices who speaks for them, and returns them by account.
func (s *Store) loadGateways(ctx context.Context, q querier, l *onDisk) error {
	var st state
	err := s.eachIn(ctx, q, func(scan func(...any) error) error {
		var id int64
		var of Behind
		err := scan(&id, &of.Source, &of.Raw, &of.Account)
		if d := l.byID[id]; err == nil && d != nil {
			st.bind(d, of)
		}
		return err
	}, `SELECT device, source, raw, account FROM gateway`)
	l.behind = st.behind
	return err
}

// notBehind refuses an account the id of a device behind a gateway.
func (s *Store) notBehind(id string) error {
	if d := s.state.devices[id]; d != nil && d.behind != (Behind{}) {
		return fmt.Errorf("%w device behind gateway %s, source %s", ErrOtherRole, cmp.Or(d.behind.Account, "(not known)"), d.behind.Source)
	}
	return nil
}
