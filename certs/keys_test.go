package certs

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each key and certificate in testdata/keys was made by openssl (one by ssh-keygen) and protects nothing.
func TestKeysThatCannotServeAreToldApart(t *testing.T) {
	for name, want := range map[string]string{
		"brainpool-sec1":  "is unsupported: the curve brainpoolP256r1; RSA, ECDSA with the curves P-256, P-384 and P-521, and Ed25519 are supported",
		"brainpool-pkcs8": "is unsupported: the curve brainpoolP256r1",
		"secp256k1":       "is unsupported: the curve secp256k1",
		"p224":            "is unsupported: the curve P-224",
		"explicit-sec1":   "is unsupported: a curve with explicit parameters; make the key with a named curve",
		"explicit-pkcs8":  "is unsupported: a curve with explicit parameters",
		"pss":             "is unsupported: RSA-PSS; make a plain RSA key instead",
		"ed448":           "is unsupported: Ed448",
		"x25519":          "is unsupported: a key for agreement",
		"rsa512-pkcs8":    "is unsupported: RSA with 512 bits, between 1024 and 8192 are needed",
		"rsa512-pkcs1":    "is unsupported: RSA with 512 bits",
		"dsa":             "is unsupported: DSA",
		"openssh":         "holds a key of OpenSSH, which is not for TLS",
		"encrypted-pkcs1": "is encrypted; the key is needed without a passphrase",
		"encrypted-sec1":  "is encrypted; the key is needed without a passphrase",
		"encrypted-pkcs8": "is encrypted; the key is needed without a passphrase",
		"der":             "holds a private key in binary form (DER); PEM is needed",
		"p12":             "holds a PKCS#12 file (.p12, .pfx)",
	} {
		t.Run(name, func(t *testing.T) {
			data := read(t, "testdata", "keys", name+".key")
			key, err := parseKey([]byte(data))
			assert.Nil(t, key)
			require.ErrorContains(t, err, want)
			assert.NotContains(t, err.Error(), "damaged")
			for line := range strings.Lines(data) {
				if line = strings.TrimSpace(line); len(line) > 8 && !strings.Contains(line, "-----") {
					assert.NotContains(t, err.Error(), line[:8])
				}
			}

			path := filepath.Join(t.TempDir(), "server.key")
			write(t, data, path)
			_, err = readKey(path)
			assert.ErrorContains(t, err, "key "+path+" "+want)
		})
	}
}

func TestKeysAreReadAsEditorsAndToolsLeaveThem(t *testing.T) {
	key, err := newKey()
	require.NoError(t, err)
	plain := string(encodeKey(key))
	for name, text := range map[string]string{
		"byte order mark":     "\xef\xbb\xbf" + plain,
		"Windows line ends":   strings.ReplaceAll(plain, "\n", "\r\n"),
		"spaces at line ends": strings.ReplaceAll(plain, "\n", "  \n"),
		"text before":         "Private-Key: (256 bit)\npriv:\n    00:11\n" + plain,
		"certificate before":  string(encodeCert(create(t, options(t)).current.Load().chain...)) + plain,
		"parameters before":   "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + plain,
	} {
		got, err := parseKey([]byte(text))
		require.NoError(t, err, name)
		assert.Equal(t, key.Public(), got.Public(), name)
	}
	for text, want := range map[string]string{
		plain[:len(plain)/2]:                                                             "it is cut off, the end is missing",
		strings.ReplaceAll(plain, "\n", ""):                                              "all of it is in one line",
		strings.ReplaceAll(plain, "\n", `\n`):                                            `its lines are joined with \n`,
		"  " + strings.ReplaceAll(plain, "\n", "\n  "):                                   "its lines are indented",
		"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n": "a certificate request",
	} {
		_, err := parseKey([]byte(text))
		assert.ErrorContains(t, err, want)
	}
}

func TestCertificatesWithUnsupportedKeysAreNotCalledDamaged(t *testing.T) {
	for name, want := range map[string]string{
		"brainpool": "is unsupported: the curve brainpoolP256r1",
		"explicit":  "is unsupported: a curve with explicit parameters",
	} {
		_, err := parseCertificates([]byte(read(t, "testdata", "keys", name+".crt")))
		require.ErrorContains(t, err, "holds a certificate whose key "+want)
	}
	for name, want := range map[string]string{"pss": "RSA-PSS", "ed448": "Ed448"} { // Go reads them without their keys
		_, err := LoadRoots(filepath.Join("testdata", "keys", name+".crt"), time.Time{})
		require.ErrorContains(t, err, "its key is unsupported: "+want)
	}
}
