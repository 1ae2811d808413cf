package certs

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// issue issues a certificate with a record, as the command does.
func issue(t *testing.T, a *Authority, name string) Pair {
	t.Helper()
	dir := t.TempDir()
	pair, err := a.IssueFiles(name, filepath.Join(dir, "c.crt"), filepath.Join(dir, "c.key"))
	require.NoError(t, err)
	return pair
}

// signList is a revocation list of a's authority, as somebody else would make it.
func signList(t *testing.T, a *Authority, edit func(*x509.RevocationList)) []byte {
	t.Helper()
	g := a.current.Load()
	list := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: noon.Add(-time.Hour), NextUpdate: noon.Add(time.Hour)}
	if edit != nil {
		edit(list)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, g.roots[0], g.caKey)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func entries(pairs ...Pair) []x509.RevocationListEntry {
	var list []x509.RevocationListEntry
	for _, p := range pairs {
		list = append(list, x509.RevocationListEntry{SerialNumber: p.leaf.SerialNumber, RevocationTime: noon})
	}
	return list
}

func TestRevokedCertificateIsRefusedInTheHandshakeAlsoWhenResumed(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		a := create(t, options(t))
		lost, kept := issue(t, a, "bed-1"), issue(t, a, "bed-2")
		failed := make(chan error, 10)
		server := a.ServerTLS(true)
		inner := server.GetConfigForClient
		server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			config, err := inner(h)
			verify := config.VerifyConnection
			config = config.Clone()
			config.VerifyConnection = func(s tls.ConnectionState) error {
				err := verify(s)
				if err != nil {
					failed <- err
				}
				return err
			}
			return config, err
		}
		address := echo(t, server)
		config := withPair(t, client(a), lost)
		config.MaxVersion, config.ClientSessionCache = version, tls.NewLRUClientSessionCache(1)
		_, err := dial(t, address, config)
		require.NoError(t, err)
		second, err := dial(t, address, config)
		require.NoError(t, err)
		require.True(t, second.ConnectionState().DidResume, "the ticket would open the door")

		_, err = a.Revoke("bed-1")
		require.NoError(t, err)
		assert.True(t, a.Revoked([][]*x509.Certificate{{lost.leaf}}))
		for _, cache := range []tls.ClientSessionCache{config.ClientSessionCache, nil} {
			config.ClientSessionCache = cache
			_, err = dial(t, address, config)
			require.Error(t, err, "%s, ticket %v", tls.VersionName(version), cache != nil)
			if version == tls.VersionTLS12 { // with 1.3 the client can be done, and writing, when the alert comes
				assert.ErrorContains(t, err, "bad certificate")
			}
			var revoked *RevokedError
			require.ErrorAs(t, <-failed, &revoked)
			assert.Equal(t, RevokedError{"bed-1", serialText(lost.leaf.SerialNumber)}, *revoked)
		}
		_, err = dial(t, address, withPair(t, client(a), kept))
		require.NoError(t, err)
		_, err = dial(t, address, withPair(t, client(a), issue(t, a, "bed-1")))
		require.NoError(t, err, "a new certificate of the same name")
	}
}

func TestListGrowsAndNeverExpiresBeforeItsAuthority(t *testing.T) {
	o := options(t)
	a := create(t, o)
	assert.NoFileExists(t, a.ownList)
	issue(t, a, "bed-1")
	read := func() *x509.RevocationList {
		lists, err := parseRevocationLists([]byte(read(t, a.ownList)))
		require.NoError(t, err)
		require.Len(t, lists, 1)
		return lists[0]
	}
	assert.Empty(t, read().RevokedCertificateEntries)
	for n := 1; n <= 3; n++ {
		name := fmt.Sprint("bed-", n)
		if n > 1 {
			issue(t, a, name)
		}
		revoked, err := a.Revoke(name)
		require.NoError(t, err)
		require.Len(t, revoked, 1)
		list := read()
		assert.Len(t, list.RevokedCertificateEntries, n)
		assert.Equal(t, int64(n+1), list.Number.Int64())
		assert.Equal(t, a.current.Load().roots[0].NotAfter, list.NextUpdate)
	}
	info, err := os.Stat(a.ownList)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o644), info.Mode().Perm())

	again, err := Open(o)
	require.NoError(t, err)
	issued, err := again.Issued()
	require.NoError(t, err)
	require.Len(t, issued, 3)
	for _, i := range issued {
		assert.Equal(t, Revoked, i.State)
	}
	_, err = again.Revoke("bed-1")
	require.ErrorIs(t, err, ErrNotIssued, "it is revoked")
	_, err = again.Revoke("bed-9")
	require.ErrorIs(t, err, ErrNotIssued)
}

func TestLostListIsNoPardon(t *testing.T) {
	o := options(t)
	a := create(t, o)
	lost := issue(t, a, "bed-1")
	_, err := a.Revoke("bed-1")
	require.NoError(t, err)
	require.NoError(t, os.Remove(a.ownList))
	require.ErrorIs(t, a.Reload(), ErrRevocationList)
	assert.True(t, a.Revoked([][]*x509.Certificate{{lost.leaf}}), "the list before stays in force")
	_, err = Open(o)
	require.ErrorIs(t, err, ErrRevocationList)
	assert.ErrorContains(t, err, "restore it from a backup")

	_, err = Create(o, true)
	require.NoError(t, err)
	assert.NoFileExists(t, a.index, "another authority, another index")
	_, err = Open(o)
	require.NoError(t, err)
}

// A list that nobody mends must not end in a server certificate that nobody accepts.
func TestDamagedListDoesNotKeepTheServerCertificateFromBeingRenewed(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"damaged": func(path string) error { return os.WriteFile(path, []byte("damaged"), 0o600) },
		"lost":    os.Remove,
	} {
		for _, reloaded := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reloaded: %t", name, reloaded), func(t *testing.T) {
				inBubble(t, nil, func(r running) {
					lost := issue(t, r.Authority, "bed-1")
					_, err := r.Revoke("bed-1")
					require.NoError(t, err)
					before := r.ServerPEM()
					good := read(t, r.ownList)
					require.NoError(t, spoil(r.ownList))
					if reloaded {
						require.ErrorIs(t, r.Reload(), ErrRevocationList)
					}
					r.later(0)
					require.ErrorIs(t, r.ListProblem(), ErrRevocationList)
					r.later(300 * day)
					assert.NotEqual(t, before, r.ServerPEM())
					assert.Equal(t, read(t, r.Dir, "server.crt"), string(r.ServerPEM()))
					renewed := r.ServerPEM()
					r.later(0)
					assert.Equal(t, renewed, r.ServerPEM(), "once")
					assert.True(t, r.Revoked([][]*x509.Certificate{{lost.leaf}}), "the list before stays in force")
					assert.Equal(t, 1, r.logged("the one before stays in force"), r.log.String())

					write(t, good, r.ownList)
					r.later(0)
					require.NoError(t, r.ListProblem())
				})
			})
		}
	}
}

// The files need not change for it: there were no descriptors left when another process had revoked.
func TestChangeThatCouldNotBeReadIsTriedAgain(t *testing.T) {
	o := options(t)
	var log bytes.Buffer
	create(t, o)
	command, err := Open(o)
	require.NoError(t, err)
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	a, err := Open(o)
	require.NoError(t, err)
	lost := issue(t, command, "bed-1")
	_, err = command.Revoke("bed-1")
	require.NoError(t, err)
	withoutDescriptors := func(do func()) {
		var limit syscall.Rlimit
		require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
		none := limit
		none.Cur = 0
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none))
		defer func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)) }()
		do()
	}
	withoutDescriptors(func() {
		a.check()
		a.check()
		require.ErrorIs(t, a.Reload(), syscall.EMFILE)
		a.check()
	})
	assert.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), log.String())
	assert.False(t, a.Revoked([][]*x509.Certificate{{lost.leaf}}))
	a.check()
	assert.True(t, a.Revoked([][]*x509.Certificate{{lost.leaf}}))
}

func TestLostListIsGivenUpByMovingTheIndexAway(t *testing.T) {
	inBubble(t, nil, func(r running) {
		lost := issue(t, r.Authority, "bed-1")
		_, err := r.Revoke("bed-1")
		require.NoError(t, err)
		require.NoError(t, os.Remove(r.ownList))
		r.later(0)
		generation := r.current.Load()
		r.later(0)
		assert.Same(t, generation, r.current.Load(), "nothing has changed")
		require.ErrorIs(t, r.ListProblem(), ErrRevocationList)
		require.NoError(t, os.Rename(r.index, r.index+".away"))
		r.later(0)
		require.NoError(t, r.ListProblem())
		assert.False(t, r.Revoked([][]*x509.Certificate{{lost.leaf}}))
	})
}

// The list before is one of the authority before: it says nothing about another one.
func TestDamagedListLetsNoOtherAuthorityIn(t *testing.T) {
	o := options(t)
	a, other := create(t, o), create(t, options(t))
	issue(t, a, "bed-1")
	write(t, string(a.RootPEM())+string(other.RootPEM()), a.caCert)
	write(t, "damaged", a.ownList)
	a.check()
	assert.Len(t, a.current.Load().roots, 1)
}

func TestLinkToNowhereIsALostList(t *testing.T) {
	o := options(t)
	create(t, o)
	require.NoError(t, os.Symlink(filepath.Join(o.Dir, "away"), filepath.Join(o.Dir, "ca.crl")))
	_, err := Open(o)
	require.ErrorIs(t, err, ErrRevocationList)
}

func TestRevocationKeepsTheListsOfOtherAuthorities(t *testing.T) {
	a, old := create(t, options(t)), create(t, options(t))
	lost := issue(t, old, "bed-1")
	issue(t, a, "bed-2")
	others := signList(t, old, func(l *x509.RevocationList) { l.RevokedCertificateEntries = entries(lost) })
	write(t, string(a.RootPEM())+string(old.RootPEM()), a.caCert)
	write(t, read(t, a.ownList)+string(others), a.ownList)
	require.NoError(t, a.Reload())
	for _, name := range []string{"bed-2", "bed-3"} {
		if name == "bed-3" {
			issue(t, a, name)
		}
		_, err := a.Revoke(name)
		require.NoError(t, err)
		assert.True(t, a.Revoked([][]*x509.Certificate{{lost.leaf}}))
		assert.Len(t, a.current.Load().revoked.lists, 2)
	}
}

func TestListsThatCannotBeUsed(t *testing.T) {
	o := options(t)
	a, other := create(t, o), create(t, options(t))
	good := signList(t, a, nil)
	block, _ := pem.Decode(good)
	critical := func(id asn1.ObjectIdentifier) []byte {
		return signList(t, a, func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: id, Critical: true, Value: []byte{2, 1, 1}}}
		})
	}
	damaged := bytes.Clone(block.Bytes)
	damaged[len(damaged)-1] ^= 1
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"missing":            {nil, "does not exist"},
		"empty":              {[]byte(" \n"), "is empty"},
		"text":               {[]byte("hello"), "no revocation list in PEM form"},
		"binary":             {block.Bytes, "binary form (DER)"},
		"a certificate":      {a.RootPEM(), "something else than a revocation list"},
		"a list and a key":   {append(bytes.Clone(good), encodeKey(a.current.Load().caKey)...), "something else than a revocation list"},
		"cut":                {good[:len(good)-30], "damaged"},
		"second one is cut":  {append(bytes.Clone(good), good[:100]...), "damaged"},
		"no list in the PEM": {pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("x")}), "damaged"},
		"other authority":    {signList(t, other, nil), "is not signed by the authority in"},
		"signature":          {pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: damaged}), "is not signed by the authority in"},
		"changes only":       {critical(asn1.ObjectIdentifier{2, 5, 29, 27}), "a complete one is needed"},
		"for other issuers":  {critical(asn1.ObjectIdentifier{2, 5, 29, 28}), "a complete one is needed"},
	} {
		t.Run(name, func(t *testing.T) {
			o := o
			o.CRL = filepath.Join(t.TempDir(), "list.pem")
			if c.data != nil {
				write(t, string(c.data), o.CRL)
			}
			_, err := Open(o)
			require.ErrorIs(t, err, ErrRevocationList)
			assert.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, o.CRL)
			assert.ErrorContains(t, CheckRevocationList(o.CRL, filepath.Join(o.Dir, "ca.crt")), c.want)
		})
	}
}

func TestListFromOutsideIsReadAndNotWritten(t *testing.T) {
	o := options(t)
	a := create(t, o)
	lost, kept := issue(t, a, "bed-1"), issue(t, a, "bed-2")
	o.CRL = filepath.Join(t.TempDir(), "list.pem")
	data := signList(t, a, func(l *x509.RevocationList) { l.RevokedCertificateEntries = entries(lost) })
	write(t, string(data), o.CRL)
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	a, err := Open(o)
	require.NoError(t, err)
	_, err = a.Revoke("bed-2")
	require.ErrorContains(t, err, "comes from outside")
	assert.Equal(t, string(data), read(t, o.CRL))

	a.now = at(noon.Add(48 * time.Hour)) // it is out of date now
	a.check()
	a.check()
	assert.True(t, a.Revoked([][]*x509.Certificate{{lost.leaf}}))
	assert.False(t, a.Revoked([][]*x509.Certificate{{kept.leaf}}))
	assert.Equal(t, 1, strings.Count(log.String(), "out of date, its entries stay in force"), log.String())

	write(t, "damaged", o.CRL)
	a.check()
	assert.Contains(t, log.String(), "no revocation list in PEM form")
	assert.True(t, a.Revoked([][]*x509.Certificate{{lost.leaf}}), "the list before stays in force")

	both := signList(t, a, func(l *x509.RevocationList) { l.RevokedCertificateEntries = entries(lost, kept) })
	write(t, string(both), o.CRL)
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, a.Run(ctx, cancel), "it tells of the change")
	assert.True(t, a.Revoked([][]*x509.Certificate{{kept.leaf}}))
}

func TestOneGoodChainIsEnough(t *testing.T) {
	a := create(t, options(t))
	root := a.current.Load().roots[0]
	leaf, middle, other := issue(t, a, "leaf").leaf, issue(t, a, "middle").leaf, issue(t, a, "other").leaf
	_, err := a.Revoke("middle")
	require.NoError(t, err)
	assert.False(t, a.Revoked(nil))
	assert.True(t, a.Revoked([][]*x509.Certificate{{leaf, middle, root}}), "revoked in the middle")
	assert.False(t, a.Revoked([][]*x509.Certificate{{leaf, middle, root}, {leaf, other, root}}))
	twin := *leaf
	twin.SerialNumber, twin.RawIssuer = middle.SerialNumber, []byte("another authority")
	assert.False(t, a.Revoked([][]*x509.Certificate{{&twin}}), "serials are each authority's own")
}

// What is accepted has every entry of every list in it.
func FuzzParseRevocationLists(f *testing.F) {
	seed, err := os.ReadFile(filepath.Join("testdata", "list.pem"))
	require.NoError(f, err)
	f.Add(seed)
	f.Add(append(bytes.Clone(seed), seed...))
	f.Add(append([]byte("Certificate Revocation List (CRL):\n"), seed...))
	f.Add(seed[:len(seed)/2])
	f.Add([]byte("-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lists, err := parseRevocationLists(data)
		if err != nil {
			return
		}
		require.NotEmpty(t, lists)
		require.Len(t, lists, bytes.Count(data, []byte("-----BEGIN ")))
		r := newRevocations(lists)
		for _, list := range lists {
			for _, entry := range list.RevokedCertificateEntries {
				require.True(t, r.has(&x509.Certificate{RawIssuer: list.RawIssuer, SerialNumber: entry.SerialNumber}))
			}
		}
	})
}
