package certs

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestKeyModesAreThoseThatPostgreSQLTakes(t *testing.T) {
	const us = 1000
	for name, c := range map[string]struct {
		mode        fs.FileMode
		owner, self int
		mounted     bool
		want        string
	}{
		"ours alone":                           {0o600, us, us, false, ""},
		"ours alone, not to be written":        {0o400, us, us, false, ""},
		"ours, readable by our group":          {0o640, us, us, false, "chmod 600"},
		"ours, readable by all":                {0o604, us, us, false, "chmod 600"},
		"root's, readable by our group":        {0o640, 0, us, false, ""},
		"root's, only readable by our group":   {0o440, 0, us, false, ""},
		"root's, writable by our group":        {0o660, 0, us, false, "sudo chmod 640"},
		"root's, executable by our group":      {0o650, 0, us, false, "sudo chmod 640"},
		"root's, readable by all":              {0o644, 0, us, false, "sudo chmod 640"},
		"root's, and we are root":              {0o640, 0, 0, false, "chmod 600"},
		"another's, and we are root":           {0o600, us, 0, false, ""},
		"another's group, and we are root":     {0o640, us, 0, false, "chmod 600"},
		"somebody's, readable by a group":      {0o640, 7, us, false, "chmod 600"},
		"a secret of Docker":                   {0o444, 0, us, true, ""},
		"a secret of Docker, as root":          {0o444, 0, 0, true, ""},
		"a secret of Kubernetes":               {0o644, 0, us, true, ""},
		"a mounted file that others may write": {0o666, 0, us, true, "sudo chmod 640"},
		"0444 where others can be":             {0o444, 0, us, false, "sudo chmod 640"},
		"ours, 0444, where others can be":      {0o444, us, us, false, "chmod 600"},
	} {
		assert.Equal(t, c.want, checkKeyMode(c.mode, c.owner, c.self, func() bool { return c.mounted }), name)
	}
}

// "sudo plantops doctor" beside a server whose key root shares with its group.
func TestRootReadsAKeyThatItSharesWithAServiceAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give files to a group that it is not in")
	}
	key, err := newKey()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "server.key")
	write(t, string(encodeKey(key)), path)
	require.NoError(t, os.Chown(path, 0, 1000))
	for mode, good := range map[fs.FileMode]bool{0o640: true, 0o440: true, 0o600: true, 0o660: false, 0o644: false} {
		require.NoError(t, os.Chmod(path, mode))
		if _, err = readKey(path); good {
			assert.NoError(t, err, "%04o", mode)
			continue
		}
		require.ErrorIs(t, err, ErrInsecureKey, "%04o", mode)
		assert.ErrorContains(t, err, "chmod 640 "+path)
	}
	require.NoError(t, os.Chown(path, 0, 0))
	require.NoError(t, os.Chmod(path, 0o640))
	_, err = readKey(path)
	assert.ErrorIs(t, err, ErrInsecureKey, "root's own group is no service's")
}

// A mount of its own, as Docker makes for a secret, in a name space of its own.
func TestSecretOnAReadOnlyMountIsAcceptedAsRoot(t *testing.T) {
	if os.Getenv("PLANTOPS_SECRET_MOUNT") != "" {
		dir := os.Getenv("PLANTOPS_SECRET_MOUNT")
		_, err := readKey(filepath.Join(dir, "server.key"))
		require.ErrorIs(t, err, ErrInsecureKey, "0444 where it can be written")
		require.NoError(t, syscall.Mount(dir, dir, "", syscall.MS_BIND, ""))
		require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""))
		_, err = readKey(filepath.Join(dir, "server.key"))
		require.NoError(t, err)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may mount; TestKeyModesAreThoseThatPostgreSQLTakes holds the rule")
	}
	dir := t.TempDir()
	key, err := newKey()
	require.NoError(t, err)
	write(t, string(encodeKey(key)), dir, "server.key")
	require.NoError(t, os.Chmod(filepath.Join(dir, "server.key"), 0o444))
	child := exec.Command(os.Args[0], "-test.run=^TestSecretOnAReadOnlyMountIsAcceptedAsRoot$", "-test.v")
	child.Env = append(os.Environ(), "PLANTOPS_SECRET_MOUNT="+dir)
	child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := child.CombinedOutput()
	if err != nil && child.ProcessState == nil {
		t.Skip("no mount name space here: ", err)
	}
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS")
}

func TestWhatRootWritesBelongsToTheOwnerOfTheDirectoryAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const somebody = 12345
	o := options(t)
	data := filepath.Dir(o.Dir)
	require.NoError(t, os.Mkdir(data, 0o755))
	require.NoError(t, os.Chown(data, somebody, somebody))
	a := create(t, o)
	_, err := a.IssueFiles("bed-1", filepath.Join(o.Dir, "bed-1.crt"), filepath.Join(o.Dir, "bed-1.key"))
	require.NoError(t, err)
	_, err = a.Renew()
	require.NoError(t, err)
	entries, err := os.ReadDir(o.Dir)
	require.NoError(t, err)
	require.Len(t, entries, 8)
	for _, path := range append([]string{""}, names(entries)...) {
		info, err := os.Stat(filepath.Join(o.Dir, path))
		require.NoError(t, err)
		assert.EqualValues(t, somebody, info.Sys().(*syscall.Stat_t).Uid, path)
		assert.EqualValues(t, somebody, info.Sys().(*syscall.Stat_t).Gid, path)
	}
}

func names(entries []fs.DirEntry) (list []string) {
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// A server.crt may hold the key too, when nobody else can read it.
func TestKeyInTheServerCertificateIsJudgedByItsMode(t *testing.T) {
	o := options(t)
	create(t, o)
	both := filepath.Join(t.TempDir(), "both.pem")
	write(t, read(t, o.Dir, "server.crt")+read(t, o.Dir, "server.key"), both)
	o.CACert, o.ServerCert, o.ServerKey = filepath.Join(o.Dir, "ca.crt"), both, filepath.Join(o.Dir, "server.key")
	a, err := Open(o)
	require.NoError(t, err)
	assert.NotContains(t, string(a.ServerPEM())+string(a.RootPEM()), "PRIVATE KEY")
	require.NoError(t, os.Chmod(both, 0o644))
	_, err = Open(o)
	require.ErrorIs(t, err, ErrInsecureKey)
	assert.ErrorContains(t, err, both)
}
