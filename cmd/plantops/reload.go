package main

import (
	"context"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/plantops/plantops/config"
)

// reloadConfig takes over what can change while the program runs, and names what cannot. A configuration
// or certificates that are wrong change nothing. Accounts need no reload: they are live at once.
func (s *service) reloadConfig() {
	notifyReloading(s.log)
	defer notify(s.log, daemon.SdNotifyReady)
	s.log.Info("reloading configuration")
	if _, err := s.server.ReloadCertificates(context.Background()); err != nil {
		s.log.Error("the certificates stay as they were", "err", err)
	}
	loaded, err := s.app.load()
	if err != nil {
		s.log.Error("the configuration stays as it was", "err", err)
		return
	}
	live, restart := config.Changes(s.loaded.Config, loaded.Config)
	if err := setLevel(&s.level, loaded.Config.Log.Level); err != nil {
		s.log.Error("the configuration stays as it was", "err", err)
		return
	}
	// Keys that need a restart keep being named at each reload until it has come.
	s.loaded.Config.Log.Level = loaded.Config.Log.Level
	s.loaded.Config.Ingest.OfflineAfter = loaded.Config.Ingest.OfflineAfter
	s.server.SetOfflineAfter(loaded.Config.Ingest.OfflineAfter)
	for _, key := range live {
		s.log.Info("setting changed", "key", key)
	}
	for _, key := range restart {
		s.log.Warn("changed setting needs a restart", "key", key)
	}
	s.log.Info("configuration reloaded")
}
