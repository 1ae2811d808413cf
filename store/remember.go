package store

import (
	"database/sql/driver"
	"errors"
	"fmt"
)

// A running server has in memory what the small tables say: names, counters and accounts. Where the file has lost some of
// that, memory gives it back.

// remembers reports whether a table is in memory.
func (c *carrier) remembers(table string) bool {
	if c.memory == nil || c.memory.state.devices == nil || c.memory.accounts.Load() == nil {
		return false
	}
	switch table {
	case "device", "counter", "metric", "refusal", "account", "rule":
		return true
	}
	return false
}

// remember inserts what is in memory and not in the new file.
func (c *carrier) remember() error {
	if !c.remembers("device") {
		return nil
	}
	s := &c.memory.state
	for _, d := range s.devices {
		f := &d.facts
		c.recall(`INSERT OR IGNORE INTO device (id, name, created) VALUES (?, ?, ?)`, d.id, d.name, d.created)
		c.recall(`INSERT OR IGNORE INTO counter (device, stored, duplicate, quarantined, refused, rows, last_seen, last_reading, dropped, skipped)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, d.id, f.counts.Stored, f.counts.Duplicate, f.counts.Quarantined, f.counts.Refused,
			f.rows, f.lastSeen, f.lastReading, f.dropped, f.skipped)
	}
	for name, id := range s.metrics {
		c.recall(`INSERT OR IGNORE INTO metric (id, name, device) VALUES (?, ?, 0)`, int64(id), name)
	}
	for reason, n := range s.refusals {
		c.recall(`INSERT OR IGNORE INTO refusal (reason, count) VALUES (?, ?)`, reason, n)
	}
	for name, credential := range *c.memory.accounts.Load() {
		c.recallAccount(name, &credential)
	}
	err := c.recalled.err
	for _, q := range c.recalled.statements {
		err = errors.Join(err, q.stmt.Close())
	}
	if err != nil {
		return fmt.Errorf("what was in memory: %w", err)
	}
	return nil
}

func (c *carrier) recallAccount(name string, of *credential) {
	a := &of.account
	algorithm, salt, hash, admin := algorithmSHA256, of.salt, of.hash, int64(0)
	if of.password != nil {
		algorithm, salt, hash = algorithmPassword, []byte{}, []byte(of.password.hash.String())
	}
	if a.Admin {
		admin = 1
	}
	c.recall(`INSERT OR IGNORE INTO account (name, role, algorithm, salt, hash, created, admin) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		name, string(a.Role), algorithm, salt, hash, a.Created, admin)
	if of.password == nil {
		return // devices have no rules
	}
	for action, filters := range map[string][]string{"publish": a.Publish, "subscribe": a.Subscribe} {
		for _, filter := range filters {
			c.recall(`INSERT OR IGNORE INTO rule (account, action, filter) VALUES (?, ?, ?)`, name, action, filter)
		}
	}
}

// recalled is what recall keeps from call to call.
type recalled struct {
	statements map[string]*statement
	err        error // the first one
}

// recall runs a statement, unless one before has failed.
func (c *carrier) recall(text string, values ...driver.Value) {
	if c.recalled.err != nil {
		return
	}
	q := c.recalled.statements[text]
	if q == nil {
		if q, c.recalled.err = c.to.w.statement(text); c.recalled.err != nil {
			return
		}
		if c.recalled.statements == nil {
			c.recalled.statements = map[string]*statement{}
		}
		c.recalled.statements[text] = q
	}
	c.recalled.err = q.run(values...)
}
