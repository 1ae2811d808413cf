package certs

import (
	"io/fs"
	"os"
	"syscall"
)

const (
	ownerOnly   = fs.FileMode(0o077) // none of these bits
	groupMayUse = fs.FileMode(0o037) // none of these: the group may read
	readersOnly = fs.FileMode(0o133) // none of these: everybody may read
)

// checkKeyMode says what to do about a key that others can use; "" when nobody can. The rule is PostgreSQL's (be-secure-common.c):
// a key of ours is for us alone, one of root's may be readable by a group, which is how a distribution hands
// keys to services. A secret that Docker or Kubernetes mounts has 0444 or 0644 and sits on a read-only mount of its own, where nobody but
// this program is.
func checkKeyMode(mode fs.FileMode, owner, self int, mounted func() bool) (remedy string) {
	switch {
	case mode&ownerOnly == 0:
		return ""
	case owner == 0 && self != 0 && mode&groupMayUse == 0:
		return ""
	case mode&readersOnly == 0 && mounted():
		return ""
	case owner == 0 && self != 0:
		return "sudo chmod 640"
	}
	return "chmod 600"
}

// reader is the user for whom a key is judged. A command under sudo reads a key that root shares with the group of a service for
// that service, as libpq does (fe-secure-openssl.c): chmod 600 would take it away from the server.
func reader(self, owner, group int) int {
	const someService = -1
	if self == 0 && owner == 0 && group != 0 {
		return someService
	}
	return self
}

// readOnlyFlag is ST_RDONLY of statvfs(3), which Linux gives in statfs(2) too, for each mount by itself.
const readOnlyFlag = 1

// onReadOnlyMount tells a mounted secret from a file of a system whose root is read-only as a whole, as some set up
// their Pi: there other users can read it.
func onReadOnlyMount(f *os.File, info fs.FileInfo) bool {
	var here, root syscall.Statfs_t
	if syscall.Fstatfs(int(f.Fd()), &here) != nil || here.Flags&readOnlyFlag == 0 {
		return false
	}
	if syscall.Statfs("/", &root) != nil || root.Flags&readOnlyFlag == 0 {
		return true
	}
	rootInfo, err := os.Stat("/")
	if err != nil {
		return false
	}
	mine, ok := info.Sys().(*syscall.Stat_t)
	roots, known := rootInfo.Sys().(*syscall.Stat_t)
	return ok && known && mine.Dev != roots.Dev
}
