package store

import (
	"context"
	"fmt"
)

// SettingAuthorities is the setting with the SHA-256 fingerprints of the certificate authorities that devices of this
// database trust, AB:CD:… separated by spaces, as certs prints them.
const SettingAuthorities = "certificate_authorities"

// SettingAuthorityPEM is the setting with their certificates, in PEM form.
const SettingAuthorityPEM = "certificate_authorities_pem"

// SettingRetention is the setting with what deleting by age has reached; package control writes it.
const SettingRetention = "retention"

// Setting returns what was remembered under that name; "" when nothing was.
func (s *Store) Setting(ctx context.Context, name string) (string, error) {
	value := ""
	err := s.each(ctx, func(scan func(...any) error) error { return scan(&value) }, `SELECT value FROM setting WHERE name = ?`, name)
	if err != nil {
		return "", fmt.Errorf("read setting %s: %w", name, explain(err))
	}
	return value, nil
}

// SetSetting remembers value under that name, on disk when it returns nil.
func (s *Store) SetSetting(ctx context.Context, name, value string) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	if err := s.transact(func() error { return s.w.setSetting.run(name, value) }); err != nil {
		return fmt.Errorf("write setting %s: %w", name, err)
	}
	return nil
}

type settingStatements struct {
	setSetting *statement
}

func (q *settingStatements) all() []compile {
	return []compile{
		{&q.setSetting, `INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`},
	}
}
