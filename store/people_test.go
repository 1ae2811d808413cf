package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/people"
)

func TestTokensAreRightUntilTheyAreRemoved(t *testing.T) {
	p := openPlace(t)
	ctx := t.Context()
	secret, token, err := p.People().AddToken(ctx, "script", people.Operator)
	require.NoError(t, err)
	assert.Contains(t, secret, "plantops_"+token.ID+"_")
	other, _, err := p.People().AddToken(ctx, "grafana", people.Viewer)
	require.NoError(t, err)
	_, _, err = p.People().AddToken(ctx, "script", people.Viewer)
	require.ErrorIs(t, err, people.ErrExists)
	_, _, err = p.People().AddToken(ctx, "x", "root")
	require.ErrorIs(t, err, people.ErrInvalidRole)
	_, _, err = p.People().AddToken(ctx, "a/b", people.Viewer)
	require.ErrorIs(t, err, people.ErrInvalidName)

	p.now += hour
	got, ok := p.People().Verify(ctx, secret)
	require.True(t, ok)
	token.Used = p.now
	assert.Equal(t, token, got)
	for _, wrong := range []string{"", secret[1:], secret + "x", secret[:len(secret)-1], "plantops_" + token.ID + "_", other[:len(other)-1] + "!", secret[:21] + other[21:]} {
		_, ok = p.People().Verify(ctx, wrong)
		assert.False(t, ok, wrong)
	}
	written := asked(t, p.path, `SELECT used FROM api_token WHERE name = 'script'`)
	p.now += 59_000
	_, ok = p.People().Verify(ctx, secret)
	require.True(t, ok)
	assert.Equal(t, written, asked(t, p.path, `SELECT used FROM api_token WHERE name = 'script'`), "at most once a minute")
	assert.Empty(t, asked(t, p.path, `SELECT name FROM api_token WHERE instr(hash, ?1) OR instr(salt, ?1) OR instr(id, ?1)`, secret))

	p.crashed()
	list, err := p.People().Tokens(ctx)
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, noon+hour, list[1].Used)
	require.NoError(t, p.People().RemoveToken(ctx, "script"))
	require.ErrorIs(t, p.People().RemoveToken(ctx, "script"), people.ErrNotFound)
	_, ok = p.People().Verify(ctx, secret)
	assert.False(t, ok)
	p.crashed()
	_, ok = p.People().Verify(ctx, secret)
	assert.False(t, ok)
	_, ok = p.People().Verify(ctx, other)
	assert.True(t, ok)
}

func TestSessionsEndWhenTheirTimeIsOver(t *testing.T) {
	p := openPlace(t)
	ctx := t.Context()
	require.NoError(t, p.AddUser(ctx, NewUser{Name: "anna", Password: "right-password", WebRole: people.Admin}))
	require.NoError(t, p.AddUser(ctx, NewUser{Name: "bob", Password: "right-password"}))
	cookie, made, err := p.People().MakeSession(ctx, "anna", 24*time.Hour)
	require.NoError(t, err)
	_, _, err = p.People().MakeSession(ctx, "nobody", time.Hour)
	require.ErrorIs(t, err, people.ErrNotFound)
	p.crashed()
	found, err := p.People().Session(ctx, cookie)
	require.NoError(t, err)
	assert.Equal(t, made, found)
	_, err = p.People().Session(ctx, cookie+"x")
	require.ErrorIs(t, err, people.ErrNotFound)

	p.now += 30_000
	require.NoError(t, p.People().Touch(ctx, cookie, found, time.Hour))
	found, err = p.People().Session(ctx, cookie)
	require.NoError(t, err)
	assert.Equal(t, made, found, "at most once a minute")
	p.now += 30_000
	require.NoError(t, p.People().Touch(ctx, cookie, found, time.Hour))
	found, err = p.People().Session(ctx, cookie)
	require.NoError(t, err)
	assert.Equal(t, people.Session{Account: "anna", Created: noon, Seen: p.now, Expires: p.now + hour}, found)

	p.unsure = true
	p.now += 1000 * hour
	_, err = p.People().Session(ctx, cookie)
	require.NoError(t, err, "nothing expires while the clock is not to be trusted")
	n, err := p.People().Expire(ctx)
	require.NoError(t, err)
	assert.Zero(t, n)
	list, err := p.People().Sessions(ctx, "anna")
	require.NoError(t, err)
	assert.Len(t, list, 1)
	p.unsure = false
	_, err = p.People().Session(ctx, cookie)
	require.ErrorIs(t, err, people.ErrNotFound)
	n, err = p.People().Expire(ctx)
	require.NoError(t, err)
	assert.EqualValues(t, 1, n)
}

func TestWhoIsLockedOutIsLoggedOut(t *testing.T) {
	p := openPlace(t)
	ctx := t.Context()
	require.NoError(t, p.AddUser(ctx, NewUser{Name: "anna", Password: "right-password", WebRole: people.Admin}))
	require.NoError(t, p.AddUser(ctx, NewUser{Name: "bob", Password: "right-password"}))
	in := func(account string) string {
		t.Helper()
		cookie, _, err := p.People().MakeSession(ctx, account, time.Hour)
		require.NoError(t, err)
		return cookie
	}
	out := func(cookie string) {
		t.Helper()
		_, err := p.People().Session(ctx, cookie)
		require.ErrorIs(t, err, people.ErrNotFound)
	}
	bobs := in("bob")
	cookie := in("anna")
	require.NoError(t, p.SetPassword(ctx, "anna", "another-password"))
	out(cookie)
	cookie = in("anna")
	require.NoError(t, p.People().EndSession(ctx, cookie))
	out(cookie)
	cookie, second := in("anna"), in("anna")
	require.NoError(t, p.People().EndSessions(ctx, "anna"))
	out(cookie)
	out(second)
	cookie = in("anna")
	require.NoError(t, p.RemoveUser(ctx, "anna"))
	out(cookie)
	first := in("bob")
	for range 50 {
		p.now++
		in("bob")
	}
	out(first)
	out(bobs)

	require.NoError(t, p.SetWebRole(ctx, "bob", people.Viewer))
	require.ErrorIs(t, p.SetWebRole(ctx, "anna", people.Viewer), ErrNotFound)
	require.ErrorIs(t, p.SetWebRole(ctx, "bob", "root"), people.ErrInvalidRole)
	p.device("probe")
	require.ErrorIs(t, p.SetWebRole(ctx, "probe", people.Viewer), ErrNotFound, "a device has none")
	p.crashed()
	a, _ := p.Account("bob")
	assert.Equal(t, people.Viewer, a.WebRole)
	require.NoError(t, p.SetPassword(ctx, "bob", "another-password"))
	a, _ = p.Account("bob")
	assert.Equal(t, people.Viewer, a.WebRole, "a new password is no new role")
}
