package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

// This file sees to it that the devices of a database keep the certificate authority that they trust: the database
// remembers it, and one that is lost is not replaced without a person's word.

// errLost: the authority that the devices trust is gone.
var errLost = errors.New("the certificate authority is lost")

// openAuthority opens the certificates, and creates them on the first start. While the clock shows a time at which nothing can be
// signed it waits.
func openAuthority(ctx context.Context, o certs.Options, db *store.Store) (*certs.Authority, error) {
	var authority *certs.Authority
	err := untilClock(ctx, o.Now, o.Log, func() (err error) {
		authority, err = certs.Open(o)
		if !errors.Is(err, certs.ErrNoAuthority) {
			return err
		}
		if err := recallAuthority(ctx, o, db); err != nil {
			return err
		}
		if authority, err = certs.Open(o); errors.Is(err, certs.ErrNoAuthority) {
			authority, err = certs.Create(o, false)
		}
		return err
	})
	if err != nil {
		return nil, certificateError(err)
	}
	return authority, rememberAuthority(ctx, authority, db, o.Log)
}

// recallAuthority returns nil when an authority may be made, or when ca.crt could be restored.
func recallAuthority(ctx context.Context, o certs.Options, db *store.Store) error {
	known, err := db.Setting(ctx, store.SettingAuthorities)
	if err != nil || known == "" {
		return err
	}
	remembered, err := db.Setting(ctx, store.SettingAuthorityPEM)
	if err != nil {
		return err
	}
	if err := certs.Restore(o, []byte(remembered)); !errors.Is(err, certs.ErrNoAuthority) {
		return err
	}
	return lostAuthority(o.Dir, known)
}

func lostAuthority(dir, known string) error {
	return control.KindOf(errConfig, control.WithHint(
		fmt.Errorf("%w: the devices of this database trust %s, and it is not in %s", errLost, known, dir),
		"restore "+dir+" from a backup: then everything is as it was",
		"to make a new one: plantops certs init --force; every device then needs the new ca.crt"))
}

// rememberAuthority writes down which authority the devices are given, and says loudly when it is another one than before or
// when its key is gone.
func rememberAuthority(ctx context.Context, authority *certs.Authority, db *store.Store, log *slog.Logger) error {
	text, err := db.Setting(ctx, store.SettingAuthorities)
	if err != nil {
		return err
	}
	known, now := strings.Fields(text), authority.Fingerprints()
	same := slices.ContainsFunc(now, func(f string) bool { return slices.Contains(known, f) })
	if !authority.Own() {
		if same && !authority.Outside() {
			log.Error("the key of the certificate authority is lost: nothing can be renewed or issued. Restore ca.key from a backup; "+
				`or make a new authority with "plantops certs init --force": every device then needs the new ca.crt`,
				"path", authority.Certificates()[0].Path, "server_certificate_ends", serverEnds(authority))
		}
		return nil
	}
	if text != "" && !same {
		log.Warn("another certificate authority than before is in use: devices that have only the old ca.crt stay away until they get the new one",
			"old", text, "new", strings.Join(now, " "))
	}
	if strings.Join(now, " ") == text {
		return nil
	}
	if err := db.SetSetting(ctx, store.SettingAuthorityPEM, string(authority.AuthoritiesPEM())); err != nil {
		return err
	}
	return db.SetSetting(ctx, store.SettingAuthorities, strings.Join(now, " "))
}

func serverEnds(authority *certs.Authority) time.Time {
	list := authority.Certificates()
	i := slices.IndexFunc(list, func(c certs.Info) bool { return c.Role == "server" })
	return list[i].NotAfter
}

// mayInit refuses to make an authority beside a database whose devices trust another one.
func (a *app) mayInit(ctx context.Context, cfg config.Config) error {
	if exists(authorityPath(cfg)) || !exists(cfg.StorePath()) {
		return nil
	}
	db, err := a.openReadOnly(ctx, cfg)
	if err != nil {
		return nil // not ours or not readable: "serve" will say so. One of an older version remembers nothing
	}
	defer db.Close() // read only: nothing that could get lost
	known, err := db.Setting(ctx, store.SettingAuthorities)
	if err != nil || known == "" {
		return err
	}
	return lostAuthority(cfg.CertsDir(), known)
}

// untilClock calls try until its error is none of a clock that is not set, which takes a Pi without a battery clock as long as
// the network takes.
func untilClock(ctx context.Context, now func() time.Time, log *slog.Logger, try func() error) error {
	err := try()
	if !errors.Is(err, certs.ErrClock) {
		return err
	}
	log.Warn("the clock is not set: waiting for time before certificates are created", "clock", now().UTC().Format(time.RFC3339), "err", err)
	tick := time.NewTicker(clockPoll)
	defer tick.Stop()
	for errors.Is(err, certs.ErrClock) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		err = try()
	}
	log.Info("the clock is set", "clock", now().UTC().Format(time.RFC3339))
	return err
}
