//go:build !linux

package swap

import "os"

// SyncData has what was written to a file on disk.
func SyncData(file *os.File) error { return file.Sync() }
