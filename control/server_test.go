package control

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/storetest"
)

// Commands branch on these errors, whether a server runs or not.
func TestOperatorsAgree(t *testing.T) {
	s := New(Options{Store: storetest.Open(t), BackendUsername: "collector", Listeners: Contact{TCP: "127.0.0.1:1883"}})
	path := filepath.Join(t.TempDir(), "s")
	socket, err := Listen(path, s, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- socket.Run(t.Context()) }()
	t.Cleanup(func() { assert.NoError(t, <-ended) })
	client, err := Dial(t.Context(), path)
	require.NoError(t, err)

	_, err = s.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	anna := store.NewUser{Name: "anna", Subscribe: []string{"devices/#"}, Password: "the garden gate"}
	require.NoError(t, s.AddUser(t.Context(), anna))
	renamed := func(name string) store.NewUser {
		u := anna
		u.Name = name
		return u
	}
	for name, c := range map[string]struct {
		order func(Operator) error
		want  error
	}{
		"device exists":       {func(o Operator) error { _, err := o.AddDevice(t.Context(), "bed-1"); return err }, store.ErrExists},
		"device of a user":    {func(o Operator) error { _, err := o.AddDevice(t.Context(), "anna"); return err }, store.ErrOtherRole},
		"device of ours":      {func(o Operator) error { _, err := o.AddDevice(t.Context(), "collector"); return err }, store.ErrInvalidID},
		"device unknown":      {func(o Operator) error { _, err := o.RotateDevice(t.Context(), "bed-2"); return err }, store.ErrNotFound},
		"user exists":         {func(o Operator) error { return o.AddUser(t.Context(), anna) }, store.ErrExists},
		"user of a device":    {func(o Operator) error { return o.AddUser(t.Context(), renamed("bed-1")) }, store.ErrOtherRole},
		"user of ours":        {func(o Operator) error { return o.AddUser(t.Context(), renamed("collector")) }, store.ErrInvalidID},
		"user without a name": {func(o Operator) error { return o.AddUser(t.Context(), renamed("")) }, store.ErrInvalidID},
		"short password":      {func(o Operator) error { return o.SetPassword(t.Context(), "anna", "short") }, store.ErrInvalidPassword},
		"user unknown":        {func(o Operator) error { return o.RemoveUser(t.Context(), "vera") }, store.ErrNotFound},
		"calibrated unknown": {func(o Operator) error {
			_, err := o.Calibrate(t.Context(), Calibration{Device: "bed-9", Metric: "soil"})
			return err
		}, store.ErrNotFound},
		"voided unknown": {func(o Operator) error {
			_, err := o.Void(t.Context(), Void{Device: "bed-9", From: 5, To: 6})
			return err
		}, store.ErrNotFound},
		"unvoid unknown":  {func(o Operator) error { return o.Unvoid(t.Context(), 7) }, store.ErrNotFound},
		"derived unknown": {func(o Operator) error { return o.RemoveDerived(t.Context(), "vpd") }, store.ErrNotFound},
		"entry unknown":   {func(o Operator) error { _, err := o.ReplayQuarantine(t.Context(), []int64{7}); return err }, store.ErrNotFound},
	} {
		here, there := c.order(s), c.order(client)
		require.ErrorIs(t, here, c.want, name)
		assert.ErrorIs(t, there, c.want, name)
		assert.EqualError(t, there, here.Error(), name)
	}

	for _, o := range []Operator{s, client} {
		reach, err := o.Contact(t.Context())
		require.NoError(t, err)
		assert.Equal(t, Contact{TCP: "127.0.0.1:1883"}, reach, "no broker has bound another")
		refused, err := o.Refusals(t.Context())
		require.NoError(t, err)
		assert.Empty(t, refused)
		ended, err := o.ReloadCertificates(t.Context())
		require.NoError(t, err)
		assert.Zero(t, ended)
	}
	here, err := s.Status(t.Context())
	require.NoError(t, err)
	there, err := client.Status(t.Context())
	require.NoError(t, err)
	here.Storage.FreeBytes, there.Storage.FreeBytes = 0, 0 // others write too
	assert.Equal(t, here, there)
	assert.False(t, there.Running)
	assert.Error(t, s.Alive(t.Context()), "nothing runs that could be alive")
}
