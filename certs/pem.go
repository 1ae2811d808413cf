package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// parseCertificates returns every certificate of a PEM text. Its errors end a sentence that begins with
// the file, and never quote the file: it may be a key.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("is empty")
	}
	var certs []*x509.Certificate
	var broken error
	key, other := false, false
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				broken = err
				continue
			}
			certs = append(certs, c)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			key = true
		default:
			other = true
		}
	}
	switch {
	case len(certs) > 0:
		return certs, nil
	case broken != nil:
		return nil, fmt.Errorf("holds a damaged certificate: %w", broken)
	case key:
		return nil, errors.New("holds a private key, not a certificate")
	case other:
		return nil, errors.New("holds something else than a certificate")
	}
	if _, err := x509.ParseCertificate(data); err == nil {
		return nil, errors.New("holds a certificate in binary form (DER); PEM is needed")
	}
	return nil, errors.New("holds no complete certificate in PEM form")
}

// parseKey returns the first private key of a PEM text. Its errors never quote the text.
func parseKey(data []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("is encrypted; the key is needed without a passphrase")
		default: // "EC PARAMETERS" comes before the key that openssl ecparam writes
			continue
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, errors.New("holds a damaged private key")
		}
		return signer, nil
	}
	return nil, errors.New("holds no private key in PEM form")
}

func encodeCert(chain ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

func encodeKey(key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err) // every key here comes from newKey or was parsed by x509
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
