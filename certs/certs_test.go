package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// options are valid ones for a directory that does not exist yet.
func options(t *testing.T) Options {
	t.Helper()
	return Options{Dir: filepath.Join(t.TempDir(), "data", "certs"), Now: at(noon)}
}

func create(t *testing.T, o Options) *Authority {
	t.Helper()
	a, err := Create(o, false)
	require.NoError(t, err)
	return a
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	require.NoError(t, err)
	return string(data)
}

func write(t *testing.T, data string, elem ...string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(elem...), []byte(data), 0o600))
}

func remove(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		require.NoError(t, os.Remove(filepath.Join(dir, name)))
	}
}

func TestAuthorityIsSmallAndConstrained(t *testing.T) {
	root := create(t, options(t)).current.Load().roots[0]

	assert.Equal(t, elliptic.P256(), root.PublicKey.(*ecdsa.PublicKey).Curve)
	assert.Equal(t, x509.ECDSAWithSHA256, root.SignatureAlgorithm)
	assert.True(t, root.IsCA)
	assert.Equal(t, 1, root.MaxPathLen, "it signs the authority that follows it, and no others")
	assert.Equal(t, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, root.KeyUsage)
	assert.NotEmpty(t, root.SubjectKeyId)
	assert.Equal(t, noon.Add(-time.Hour), root.NotBefore)
	assert.Equal(t, 3650*day, root.NotAfter.Sub(root.NotBefore))
	assert.Greater(t, root.SerialNumber.BitLen(), 64)
	assert.LessOrEqual(t, root.SerialNumber.BitLen(), 128)
	for _, e := range root.Extensions {
		if e.Id.String() == "2.5.29.19" {
			assert.True(t, e.Critical, "basic constraints")
		}
	}
}

func TestServerCertificateCoversThisHost(t *testing.T) {
	o := options(t)
	o.ExtraNames = []string{"Plantops.Farm", "198.51.100.7", "2001:db8::7"}
	a := create(t, o)
	leaf := a.current.Load().server()

	assert.False(t, leaf.IsCA)
	assert.Equal(t, x509.KeyUsageDigitalSignature, leaf.KeyUsage)
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, leaf.ExtKeyUsage)
	assert.Equal(t, a.current.Load().roots[0].SubjectKeyId, leaf.AuthorityKeyId)
	assert.Equal(t, noon.Add(-time.Hour), leaf.NotBefore)
	assert.Equal(t, 397*day, leaf.NotAfter.Sub(leaf.NotBefore))
	for _, ip := range []string{"127.0.0.1", "::1", "198.51.100.7", "2001:db8::7"} {
		assert.Contains(t, leaf.DNSNames, ip, "mbedTLS 2.28 looks for addresses among the DNS names only")
	}

	roots, err := LoadRoots(filepath.Join(o.Dir, "ca.crt"), noon)
	require.NoError(t, err)
	names := append(localNames(nil), "plantops.farm", "198.51.100.7", "2001:db8::7")
	for _, name := range names {
		assert.NoError(t, VerifyServer(roots, a.ServerPEM(), name, noon))
	}
	assert.Subset(t, a.Certificates()[1].Names, names)
}

func TestModesDoNotDependOnTheUmask(t *testing.T) {
	for _, mask := range []int{0, 0o077, 0o277} {
		o := options(t) // its folders are there before: the umask is for what the package makes
		require.NoError(t, os.MkdirAll(filepath.Dir(o.Dir), 0o700))
		old := syscall.Umask(mask)
		a, err := Create(o, false)
		var issued error
		if err == nil {
			pair, _ := a.Issue("bed-1")
			issued = pair.writeFiles(filepath.Join(o.Dir, "bed-1.crt"), filepath.Join(o.Dir, "bed-1.key"))
		}
		syscall.Umask(old)
		require.NoError(t, err)
		require.NoError(t, issued)

		for name, want := range map[string]fs.FileMode{".": 0o755, "ca.crt": 0o644, "server.crt": 0o644, "bed-1.crt": 0o644,
			"ca.key": 0o600, "server.key": 0o600, "bed-1.key": 0o600} {
			info, err := os.Stat(filepath.Join(o.Dir, name))
			require.NoError(t, err)
			assert.Equal(t, want, info.Mode().Perm(), "%s with umask %04o", name, mask)
		}
		entries, err := os.ReadDir(o.Dir)
		require.NoError(t, err)
		assert.Len(t, entries, 6, "no temporary file stays behind")
	}
}

func TestOpenGivesBackWhatCreateMade(t *testing.T) {
	o := options(t)
	made := create(t, o)
	opened, err := Open(o)
	require.NoError(t, err)

	assert.Equal(t, made.Certificates(), opened.Certificates())
	assert.Equal(t, made.Fingerprint(), opened.Fingerprint())
	assert.Regexp(t, `^([0-9A-F]{2}:){31}[0-9A-F]{2}$`, opened.Fingerprint())
	assert.Equal(t, read(t, o.Dir, "ca.crt"), string(opened.RootPEM()))
	assert.Equal(t, read(t, o.Dir, "server.crt"), string(opened.ServerPEM()))
}

func TestCreateNeverOverwritesWithoutForce(t *testing.T) {
	o := options(t)
	old := create(t, o)
	before := read(t, o.Dir, "ca.key") + read(t, o.Dir, "server.key")

	_, err := Create(o, false)
	require.ErrorIs(t, err, ErrExists)
	assert.ErrorContains(t, err, filepath.Join(o.Dir, "ca.crt"))
	assert.Equal(t, before, read(t, o.Dir, "ca.key")+read(t, o.Dir, "server.key"))

	forced, err := Create(o, true)
	require.NoError(t, err)
	assert.NotEqual(t, old.Fingerprint(), forced.Fingerprint())
	assert.NotEqual(t, before, read(t, o.Dir, "ca.key")+read(t, o.Dir, "server.key"))
	_, err = Open(o)
	require.NoError(t, err)
}

func TestCreateLeavesFilesOfOthersAlone(t *testing.T) {
	for _, name := range []string{"server.key", "server.crt", "ca.crt"} {
		o := options(t)
		require.NoError(t, os.MkdirAll(o.Dir, 0o700))
		write(t, "somebody's", o.Dir, name)
		_, err := Create(o, false)
		require.ErrorIs(t, err, ErrExists, name)
		assert.Equal(t, "somebody's", read(t, o.Dir, name))
	}
}

// A power cut leaves the first files of the order in which Create writes them.
func TestInterruptedCreateIsFinishedByTheNext(t *testing.T) {
	for name, lost := range map[string][]string{
		"after ca.key":     {"server.key", "server.crt", "ca.crt"},
		"after server.key": {"server.crt", "ca.crt"},
		"after server.crt": {"ca.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			create(t, o)
			key := read(t, o.Dir, "ca.key")
			remove(t, o.Dir, lost...)

			_, err := Open(o)
			require.ErrorIs(t, err, ErrNoAuthority)
			_, err = Create(o, false)
			require.NoError(t, err)
			assert.Equal(t, key, read(t, o.Dir, "ca.key"), "a key is never overwritten")
			_, err = Open(o)
			require.NoError(t, err)
		})
	}
}

// A directory in the place of a file stops the renames where a power cut may.
func TestInterruptedReplacementIsFinishedByTheNextCreate(t *testing.T) {
	for _, stop := range []string{"ca.key", "server.key", "server.crt"} {
		t.Run(stop, func(t *testing.T) {
			o := options(t)
			create(t, o)
			whole := read(t, o.Dir, stop)
			remove(t, o.Dir, stop)
			require.NoError(t, os.Mkdir(filepath.Join(o.Dir, stop), 0o700))
			_, err := Create(o, true)
			require.ErrorContains(t, err, stop)
			remove(t, o.Dir, stop)
			write(t, whole, o.Dir, stop)
			require.NoError(t, os.Chmod(filepath.Join(o.Dir, stop), 0o600))

			_, err = Open(o)
			require.ErrorIs(t, err, ErrNoAuthority)
			_, err = Create(o, false)
			require.NoError(t, err)
			_, err = Open(o)
			require.NoError(t, err)
		})
	}
}

func TestNothingIsReplacedWhenOneFileCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	write(t, "old", dir, "ca.key")
	err := writeFiles(file{filepath.Join(dir, "ca.key"), []byte("new"), 0o600}, file{filepath.Join(dir, "absent", "ca.crt"), nil, 0o644})
	require.ErrorIs(t, err, fs.ErrNotExist)
	assert.Equal(t, "old", read(t, dir, "ca.key"))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "no temporary file stays behind")
}

func TestOpenIssuesAMissingServerCertificate(t *testing.T) {
	for name, lost := range map[string][]string{
		"certificate": {"server.crt"},
		"key":         {"server.key"},
		"both":        {"server.crt", "server.key"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			made := create(t, o)
			remove(t, o.Dir, lost...)
			_, err := Open(Options{Dir: o.Dir, Now: o.Now, ReadOnly: true})
			require.Error(t, err, "who only looks issues nothing")
			a, err := Open(o)
			require.NoError(t, err)
			assert.Equal(t, made.Fingerprint(), a.Fingerprint())
			assert.NotEqual(t, made.ServerPEM(), a.ServerPEM())
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	other := options(t)
	create(t, other)
	for name, c := range map[string]struct {
		damage func(t *testing.T, o *Options)
		want   string
	}{
		"key that does not belong to the authority": {func(t *testing.T, o *Options) {
			write(t, read(t, other.Dir, "ca.key"), o.Dir, "ca.key")
		}, "ca.key does not belong to"},
		"server certificate of another authority": {func(t *testing.T, o *Options) {
			write(t, read(t, other.Dir, "server.crt"), o.Dir, "server.crt")
		}, "server.crt (issued by CN=PlantOps CA"},
		"half-written server certificate": {func(t *testing.T, o *Options) {
			write(t, read(t, o.Dir, "server.crt")[:300], o.Dir, "server.crt")
		}, "server.crt holds no complete certificate"},
		"half-written key": {func(t *testing.T, o *Options) {
			write(t, read(t, o.Dir, "server.key")[:100], o.Dir, "server.key")
		}, "server.key holds no private key"},
		"key instead of the certificate": {func(t *testing.T, o *Options) {
			write(t, read(t, o.Dir, "ca.key"), o.Dir, "ca.crt")
		}, "ca.crt holds a private key"},
		"leaf as authority": {func(t *testing.T, o *Options) {
			write(t, read(t, o.Dir, "server.crt"), o.Dir, "ca.crt")
		}, "is not a CA certificate"},
		"key in the file of the authority": {func(t *testing.T, o *Options) {
			write(t, read(t, o.Dir, "ca.crt")+read(t, o.Dir, "ca.key"), o.Dir, "ca.crt")
		}, "ca.crt holds a private key beside the certificate"},
		"extra name with a slash": {func(_ *testing.T, o *Options) { o.ExtraNames = []string{"a/b"} }, `extra name "a/b"`},
		"no directory":            {func(_ *testing.T, o *Options) { o.Dir = "" }, "no directory given"},
		"configured path missing": {func(_ *testing.T, o *Options) { o.CACert = "/nonexistent/ca.crt" }, "certificate /nonexistent/ca.crt does not exist"},
		"directory as server key": {func(_ *testing.T, o *Options) { o.ServerKey = o.Dir }, "is a directory"},
		"device as certificate":   {func(_ *testing.T, o *Options) { o.ServerCert = os.DevNull }, "is not a regular file"},
		"certificate as a key":    {func(t *testing.T, o *Options) { write(t, read(t, o.Dir, "ca.crt"), o.Dir, "ca.key") }, "ca.key holds no private key"},
		"server key not the leaf's": {func(t *testing.T, o *Options) {
			write(t, read(t, other.Dir, "server.key"), o.Dir, "server.key")
			remove(t, o.Dir, "ca.key")
		}, "server.key does not belong to"},
		"outside and incomplete": {func(t *testing.T, o *Options) { remove(t, o.Dir, "ca.key", "server.crt") }, "server.crt does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			create(t, o)
			c.damage(t, &o)
			_, err := Open(o)
			require.ErrorContains(t, err, c.want)
			assert.NotErrorIs(t, err, ErrNoAuthority, "serve would create another one")
		})
	}
}

func TestKeyThatOthersCanUseIsRefused(t *testing.T) {
	for _, name := range []string{"ca.key", "server.key"} {
		for _, mode := range []fs.FileMode{0o640, 0o604, 0o620} {
			o := options(t)
			create(t, o)
			path := filepath.Join(o.Dir, name)
			require.NoError(t, os.Chmod(path, mode))
			_, err := Open(o)
			require.ErrorIs(t, err, ErrInsecureKey)
			assert.ErrorContains(t, err, "chmod 600 "+path)
		}
	}
}

func TestErrorsNeverQuoteKeys(t *testing.T) {
	o := options(t)
	create(t, o)
	whole := read(t, o.Dir, "server.key")
	block, _ := pem.Decode([]byte(whole))
	damaged := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: block.Bytes[:40]}))
	for _, content := range []string{whole, whole[:120], strings.ReplaceAll(whole, "-----", ""), damaged, strings.ReplaceAll(whole, "PRIVATE KEY", "CERTIFICATE")} {
		for _, name := range []string{"ca.crt", "server.crt", "server.key", "ca.key"} {
			o := options(t)
			create(t, o)
			write(t, content, o.Dir, name)
			_, err := Open(o)
			if err == nil {
				continue // the whole server key is a server key
			}
			_, rootsErr := LoadRoots(filepath.Join(o.Dir, name), noon)
			for _, line := range strings.Split(content, "\n") {
				if len(line) > 8 && !strings.Contains(line, "-----") && !strings.Contains(line, " ") {
					assert.NotContains(t, err.Error(), line[:8])
					if rootsErr != nil {
						assert.NotContains(t, rootsErr.Error(), line[:8])
					}
				}
			}
		}
	}
}

func TestNothingIsCreatedBeforeTheBuildDate(t *testing.T) {
	o := options(t)
	o.NotBeforeClock = noon.Add(time.Second)
	_, err := Create(o, false)
	require.ErrorIs(t, err, ErrClock)
	assert.NoDirExists(t, o.Dir)
	assert.False(t, ClockUnsure(noon, time.Time{}), "a build without a date trusts the clock")

	// What exists is used although it is not valid yet, and nothing more is signed.
	o.NotBeforeClock = noon
	create(t, o)
	before := read(t, o.Dir, "server.crt")
	o.Now = at(time.Unix(0, 0))
	a, err := Open(o)
	require.NoError(t, err)
	_, err = a.Renew()
	require.ErrorIs(t, err, ErrClock)
	_, err = a.Issue("bed-1")
	require.ErrorIs(t, err, ErrClock)
	assert.Equal(t, before, read(t, o.Dir, "server.crt"))
	remove(t, o.Dir, "server.crt")
	_, err = Open(o)
	require.ErrorIs(t, err, ErrClock)
}

func TestCertificatesFromOutsideAreServedAsTheyAre(t *testing.T) {
	made := options(t)
	create(t, made)
	for name, outside := range map[string]func(t *testing.T) Options{
		"paths": func(t *testing.T) Options {
			o := options(t)
			create(t, o) // an authority of our own that is not used any more
			o.CACert, o.ServerCert, o.ServerKey = filepath.Join(made.Dir, "ca.crt"), filepath.Join(made.Dir, "server.crt"), filepath.Join(made.Dir, "server.key")
			return o
		},
		"directory without ca.key": func(t *testing.T) Options {
			o := options(t)
			create(t, o)
			remove(t, o.Dir, "ca.key")
			return o
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := outside(t)
			o.ExtraNames = []string{"not.covered"}
			o.Now = at(noon.Add(300 * day)) // ours would have been renewed
			a, err := Open(o)
			require.NoError(t, err)
			before := a.ServerPEM()
			a.check()
			assert.Equal(t, before, a.ServerPEM())

			_, err = a.Renew()
			require.ErrorContains(t, err, "certificates from outside")
			_, err = a.Issue("bed-1")
			require.ErrorContains(t, err, "certificates from outside")

			o.Now = at(noon.Add(400 * day))
			_, err = Open(o)
			require.NoError(t, err, "the clock may be wrong")
			o.ReadOnly = true
			_, err = Open(o)
			require.NoError(t, err, "who only looks sees the date")
		})
	}
	o := options(t)
	o.ServerCert = "/etc/elsewhere.crt"
	_, err := Create(o, true)
	require.ErrorContains(t, err, "/etc/elsewhere.crt")
}

// A clock outside the life of the authority is what time heals: what is there is served as it is, and nothing is made.
func TestAuthorityIsServedWhateverTheClockShows(t *testing.T) {
	for name, now := range map[string]time.Time{"three days behind": noon.Add(-3 * day), "eleven years ahead": noon.Add(11 * 365 * day)} {
		o := options(t)
		create(t, o)
		before := read(t, o.Dir, "ca.crt") + read(t, o.Dir, "ca.key") + read(t, o.Dir, "server.crt")
		o.Now = at(now)
		a, err := Open(o)
		require.NoError(t, err, name)
		a.check()
		assert.Equal(t, now.Before(noon), a.ClockUnsure(now), name)
		_, err = a.Renew()
		require.ErrorIs(t, err, ErrClock, name)
		_, err = a.Issue("bed-1")
		require.ErrorIs(t, err, ErrClock, name)
		assert.Equal(t, before, read(t, o.Dir, "ca.crt")+read(t, o.Dir, "ca.key")+read(t, o.Dir, "server.crt"), name)
		assert.NotEmpty(t, a.RootPEM())

		remove(t, o.Dir, "server.crt")
		_, err = Open(o)
		require.ErrorIs(t, err, ErrClock, "%s: who waits for time can try again", name)
	}
}
