package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/store"
)

// Rollover is how far the devices are when one certificate authority follows another. Which of the two a device trusts cannot
// be seen: a TLS client does not say. What is known is who was given both, with its password, since the new one is there.
type Rollover struct {
	certs.Rollover
	Devices     int64 `json:"devices"`      // that have an account
	DevicesTold int64 `json:"devices_told"` // of them, added or rotated since
}

// Text is for people.
func (r Rollover) Text() string {
	return fmt.Sprintf("%d of %d devices were given the new CA (of %s) too; the others may trust the old one alone, which ends on %s",
		r.DevicesTold, r.Devices, r.Since.Format(time.DateOnly), r.OldEnds.Format(time.DateOnly))
}

// urgentBefore is how long before the old authority's end devices without the new one are a problem.
const urgentBefore = 180 * 24 * time.Hour

// addAuthority adds what is to be known about the certificates and who trusts them.
func (s *Server) addAuthority(ctx context.Context, st *Status) error {
	st.addCertificates(s.authority, s.now())
	if !s.authority.Own() && !s.authority.Outside() {
		known, err := s.store.Setting(ctx, store.SettingAuthorities)
		if err != nil {
			return err
		}
		lost := func(f string) bool { return slices.Contains(strings.Fields(known), f) }
		if slices.ContainsFunc(s.authority.Fingerprints(), lost) {
			st.problem("the key of the certificate authority is lost: nothing can be renewed; restore ca.key from a backup")
		}
	}
	going, rolling := s.authority.Rollover()
	if !rolling {
		return nil
	}
	r := Rollover{Rollover: going}
	var err error
	if r.Devices, r.DevicesTold, err = s.store.DevicesSince(ctx, going.Since); err != nil {
		return err
	}
	st.Rollover = &r
	if r.DevicesTold < r.Devices && s.now().After(r.OldEnds.Add(-urgentBefore)) {
		st.problem("%s", r.Text())
	}
	return nil
}
