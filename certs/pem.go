package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Kinds of PEM blocks that hold a certificate. The second is what old programs write; the third is openssl's with
// what it is trusted for after the certificate itself.
const (
	blockCertificate        = "CERTIFICATE"
	blockX509Certificate    = "X509 CERTIFICATE"
	blockTrustedCertificate = "TRUSTED CERTIFICATE"
)

// parseCertificates returns every certificate of a PEM text. Its errors end a sentence that begins with
// the file, and never quote the file: it may be a key.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	text, err := pemText(data)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	var broken error
	other := ""
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := parseCertificateBlock(block)
		switch {
		case err != nil:
			broken = err
		case c != nil:
			certs = append(certs, c)
		case !isKeyBlock(block.Type):
			other = block.Type
		}
	}
	switch {
	case len(certs) > 0:
		return certs, nil
	case broken != nil:
		return nil, broken
	case holdsKey(text):
		return nil, errors.New("holds a private key, not a certificate")
	case other != "":
		return nil, fmt.Errorf("holds something else than a certificate (%s)", otherBlock(other))
	}
	return nil, noCertificate(data)
}

// parseCertificateBlock returns nil for a block of another kind.
func parseCertificateBlock(block *pem.Block) (*x509.Certificate, error) {
	der := block.Bytes
	switch block.Type {
	case blockCertificate, blockX509Certificate:
	case blockTrustedCertificate:
		var first asn1.RawValue
		if _, err := asn1.Unmarshal(der, &first); err != nil {
			return nil, fmt.Errorf("holds a damaged certificate: %w", err)
		}
		der = first.FullBytes
	default:
		return nil, nil
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		if words := unsupportedPublicKey(der); words != nil {
			return nil, fmt.Errorf("holds a certificate whose key %w", words)
		}
		return nil, fmt.Errorf("holds a damaged certificate: %w", err)
	}
	return c, nil
}

// noCertificate says what a file looks like in which no block of PEM was found.
func noCertificate(data []byte) error {
	if _, err := x509.ParseCertificate(data); err == nil {
		return errors.New("holds a certificate in binary form (DER); PEM is needed: openssl x509 -inform DER -in FILE -out NEW")
	}
	if kind := binaryKind(data); kind != "" {
		return fmt.Errorf("holds %s; certificates in PEM form are needed", kind)
	}
	return fmt.Errorf("holds no complete certificate in PEM form%s", deformed(data, "CERTIFICATE"))
}

// pemText returns data without the marks of a text editor.
func pemText(data []byte) ([]byte, error) {
	text := bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("is empty")
	}
	head := text[:min(len(text), 4096)]
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) ||
		bytes.Contains(head, []byte("B\x00E\x00G\x00I\x00N")) || bytes.Contains(head, []byte("\x00B\x00E\x00G\x00I\x00N")) {
		return nil, errors.New("is saved as UTF-16; save it as UTF-8 or plain text")
	}
	return text, nil
}

// deformed says what may have become of a block that begins with "-----BEGIN " and what, and was not readable.
func deformed(text []byte, what string) string {
	begin, end := bytes.Index(text, []byte("BEGIN ")), bytes.LastIndex(text, []byte("END "))
	if begin < 0 || !bytes.Contains(text, []byte(what)) {
		return ""
	}
	switch {
	case end < begin:
		return ": it is cut off, the end is missing"
	case bytes.Contains(text[begin:end], []byte(`\n`)):
		return `: its lines are joined with \n, as in the source text of a program`
	case !bytes.Contains(text[begin:end], []byte("\n")) && !bytes.Contains(text[begin:end], []byte("\r")):
		return ": all of it is in one line"
	case bytes.Contains(text, []byte(" -----BEGIN ")) || bytes.Contains(text, []byte("\t-----BEGIN ")):
		return ": its lines are indented"
	}
	return ": the lines with BEGIN and END, or what is between them, are damaged"
}

// otherBlock names what people mistake for certificates.
func otherBlock(kind string) string {
	switch kind {
	case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
		return "a certificate request, which an authority has to sign first"
	case "PKCS7", "CMS":
		return "PKCS#7: openssl pkcs7 -print_certs -in FILE -out NEW"
	case "X509 CRL":
		return "a revocation list"
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		return "a public key"
	case "DH PARAMETERS", "EC PARAMETERS":
		return "parameters of a key"
	}
	return fmt.Sprintf("%.40q", kind)
}

// binaryKind names the binary forms of what is wanted in PEM; "" for everything else. It never quotes data.
func binaryKind(data []byte) string {
	var outer, first asn1.RawValue
	if _, err := asn1.Unmarshal(data, &outer); err != nil || outer.Tag != asn1.TagSequence {
		return ""
	}
	if _, err := asn1.Unmarshal(outer.Bytes, &first); err != nil {
		return ""
	}
	switch {
	case first.Tag == asn1.TagInteger && bytes.Equal(first.Bytes, []byte{3}):
		return "a PKCS#12 file (.p12, .pfx)"
	case first.Tag == asn1.TagInteger:
		return "a private key in binary form (DER)"
	case first.Tag == asn1.TagOID:
		return "a PKCS#7 file in binary form (DER)"
	}
	return ""
}

func isKeyBlock(kind string) bool { return strings.HasSuffix(kind, "PRIVATE KEY") }

// holdsKey finds keys also in blocks that are damaged, indented or joined in one line: whoever gets the file gets them.
func holdsKey(text []byte) bool {
	return bytes.Contains(text, []byte("PRIVATE KEY-"))
}

func encodeCert(chain ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: c.Raw})...)
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
