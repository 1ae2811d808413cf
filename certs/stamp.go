package certs

import (
	"io/fs"
	"os"
)

// stamp is the outward state of the certificate files: nil for one that is not there.
type stamp []fs.FileInfo

func (a *Authority) stat() stamp {
	var s stamp
	add := func(path string) fs.FileInfo {
		info, err := os.Stat(path)
		if err != nil {
			info = nil
		}
		s = append(s, info)
		return info
	}
	for _, path := range []string{a.caCert, a.serverCert, a.serverKey, a.rsaCert, a.rsaKey, a.crl} {
		add(path)
	}
	for n := 1; add(a.authorityKey(n)) != nil && n < maxAuthorities; n++ {
	}
	return s
}

func (s stamp) same(t stamp) bool {
	if len(s) != len(t) {
		return false
	}
	for i := range s {
		x, y := s[i], t[i]
		if x == nil || y == nil {
			if x != y {
				return false
			}
			continue
		}
		if !os.SameFile(x, y) || x.Size() != y.Size() || x.Mode() != y.Mode() || !x.ModTime().Equal(y.ModTime()) {
			return false
		}
	}
	return true
}
