package doctor

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

func (p Patient) checkClock(r *Report, s *control.Status) {
	now := p.Now()
	if s != nil && s.ClockDoubt != "" { // the server has watched it since it was started
		r.Add(Finding{"clock", Fail, fmt.Sprintf("shows %s, which the server does not trust: %s", now.Format(time.RFC3339), s.ClockDoubt),
			"let it follow a time server: sudo timedatectl set-ntp true; until then nothing is deleted and no certificate is made"})
		return
	}
	switch synced, known := clockSynced(); {
	case now.Before(p.Built):
		r.Add(Finding{"clock", Fail, fmt.Sprintf("shows %s, which is before this program was built (%s)", now.Format(time.RFC3339), p.Built.Format(time.DateOnly)),
			"set it: sudo timedatectl set-ntp true, or sudo date -s '2026-01-31 12:00'"})
	case known && !synced:
		r.Add(Finding{"clock", Warn, fmt.Sprintf("shows %s and is not kept right by NTP", now.Format(time.RFC3339)),
			"sudo timedatectl set-ntp true; readings without a time of their own are dated by this clock"})
	case known:
		r.Add(Finding{Name: "clock", State: OK, Found: fmt.Sprintf("shows %s and is kept right by NTP", now.Format(time.RFC3339))})
	default:
		r.Add(Finding{Name: "clock", State: OK, Found: fmt.Sprintf("shows %s; whether NTP keeps it is not known", now.Format(time.RFC3339))})
	}
}

const (
	syncs    = 5
	slowSync = 100 * time.Millisecond // an SD card takes 5 to 50 ms
)

// checkDisk looks at the room and the speed of the disk that the database is on.
func (p Patient) checkDisk(r *Report) {
	dir := filepath.Dir(p.StorePath)
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		r.Add(Finding{"disk space", Fail, fmt.Sprintf("%s: %v", dir, err), "is data_dir right, and is its disk mounted?"})
		return
	}
	block := int64(disk.Bsize) // the types differ between systems
	space := store.Space{FreeBytes: int64(disk.Bavail) * block, TotalBytes: int64(disk.Blocks) * block}
	found := fmt.Sprintf("%s of %s free", control.Bytes(space.FreeBytes), control.Bytes(space.TotalBytes))
	if control.LowSpace(space, false) {
		r.Add(Finding{"disk space", Fail, "nearly full: " + found, "make room: sudo journalctl --vacuum-size=100M, sudo apt clean; or set store.retention"})
	} else {
		r.Add(Finding{Name: "disk space", State: OK, Found: found})
	}
	took, err := syncSpeed(dir)
	switch {
	case errors.Is(err, syscall.EROFS):
		r.Add(Finding{"disk sync", Fail, "the file system is read-only", "the disk may be dying: sudo dmesg | tail; copy the data directory, then fsck it or take a new card"})
	case errors.Is(err, fs.ErrPermission):
		r.Add(Finding{"disk sync", Skip, fmt.Sprintf("this user may not write in %s", dir), ""})
	case err != nil:
		r.Add(Finding{"disk sync", Fail, err.Error(), "sudo dmesg | tail says what the disk says; make room when it is full"})
	case took > p.StallTimeout:
		r.Add(Finding{"disk sync", Fail, fmt.Sprintf("takes %s, so devices get no acknowledgement in time", round(took)), "the card is worn out or much too slow: take another one, or an SSD"})
	case took > slowSync:
		r.Add(Finding{"disk sync", Warn, fmt.Sprintf("takes %s", round(took)), "each acknowledgement waits that long; the card may be worn out, or another program writes much (sudo iotop)"})
	default:
		r.Add(Finding{Name: "disk sync", State: OK, Found: fmt.Sprintf("takes %s", round(took))})
	}
}

// syncSpeed is the median of what writing and syncing a page takes, in a file that is removed again.
func syncSpeed(dir string) (took time.Duration, err error) {
	file, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	page := bytes.Repeat([]byte("plantops"), 512)
	var all []time.Duration
	for range syncs {
		began := time.Now()
		if _, err := file.Write(page); err != nil {
			return 0, err
		}
		if err := file.Sync(); err != nil {
			return 0, err
		}
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	return all[syncs/2], nil
}

const littleMemory = 64 << 20 // available; a Pi Zero has 512 MiB in all

func (p Patient) checkMemory(r *Report, status *control.Status) {
	info, err := fields(filepath.Join(p.Root, "proc/meminfo"))
	available, total := info["MemAvailable"], info["MemTotal"]
	if err != nil || total == 0 {
		r.Add(Finding{Name: "memory", State: Skip, Found: "this system does not tell"})
		return
	}
	found := fmt.Sprintf("%s of %s available", control.Bytes(available), control.Bytes(total))
	if status != nil && status.PID != 0 {
		if own, err := fields(filepath.Join(p.Root, "proc", strconv.Itoa(status.PID), "status")); err == nil && own["VmRSS"] != 0 {
			found += fmt.Sprintf("; the server uses %s", control.Bytes(own["VmRSS"]))
		}
	}
	if available < littleMemory {
		r.Add(Finding{"memory", Warn, found, "stop what is not needed (ps -eo rss,args --sort -rss | head), or lower limits.max_connections"})
		return
	}
	r.Add(Finding{Name: "memory", State: OK, Found: found})
}

// fields reads lines such as "MemTotal:  16 kB" of /proc as bytes.
func fields(path string) (map[string]int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	values := map[string]int64{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) == 3 && words[2] == "kB" {
			n, _ := strconv.ParseInt(words[1], 10, 64) // a word that is no number is none of those asked for
			values[strings.TrimSuffix(words[0], ":")] = n << 10
		}
	}
	return values, nil
}

// checkPermissions looks at who can read and write what the server keeps.
func (p Patient) checkPermissions(r *Report) {
	info, err := os.Stat(p.DataDir)
	if err != nil {
		r.Add(Finding{"permissions", Fail, err.Error(), `data_dir (--data-dir) names the directory; "plantops serve" makes it`})
		return
	}
	owner := ownerOf(info)
	bad := 0
	complain := func(state State, found, repair string) {
		bad++
		r.Add(Finding{"permissions", state, found, repair})
	}
	if info.Mode().Perm()&0o002 != 0 {
		complain(Fail, "everybody may write in "+p.DataDir, "chmod o-w "+p.DataDir)
	}
	for _, path := range []string{p.StorePath, p.StorePath + "-wal", filepath.Join(p.CertsDir, "ca.key"), filepath.Join(p.CertsDir, "server.key"),
		filepath.Join(p.CertsDir, "server-rsa.key"), filepath.Join(p.CertsDir, "ca.crt"), filepath.Join(p.DataDir, "plantops.lock")} {
		file, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			complain(Fail, err.Error(), "run this as the user of the server: sudo -u plantops plantops doctor")
			continue
		}
		secret := filepath.Ext(path) == ".key" || strings.HasPrefix(path, p.StorePath)
		if open := file.Mode().Perm() & 0o077; secret && open&0o007 != 0 {
			complain(Fail, path+" can be used by everybody", "chmod o-rwx "+path)
		} else if file.Mode().Perm()&0o002 != 0 {
			complain(Fail, "everybody may write "+path, "chmod o-w "+path)
		}
		if of := ownerOf(file); of != owner && of != 0 {
			complain(Warn, fmt.Sprintf("%s belongs to user %d, the data directory to user %d", path, of, owner),
				fmt.Sprintf("sudo chown --reference=%s %s", p.DataDir, path))
		} else if of == 0 && owner != 0 && filepath.Dir(path) == filepath.Clean(p.DataDir) {
			complain(Fail, fmt.Sprintf("%s belongs to root, so the server (user %d) may not write it", path, owner),
				fmt.Sprintf("sudo chown --reference=%s %s; run commands with sudo -u, not as root", p.DataDir, path))
		}
	}
	if bad == 0 {
		r.Add(Finding{Name: "permissions", State: OK, Found: "database and keys are for their owner alone"})
	}
}

func ownerOf(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}

// backupIsOld is how old the newest backup may be where none are made by themselves.
const backupIsOld = 30 * 24 * time.Hour

// checkBackup looks whether there is a backup that would help.
func (p Patient) checkBackup(r *Report, status *control.Status) {
	if status == nil {
		r.Add(Finding{Name: "backup", State: Skip, Found: "only the running server knows of backups"})
		return
	}
	b := status.Backups
	const remedy = `set backup.every: 1d and backup.dir to a folder on another disk (docs/settings.md), or run "plantops backup FILE" now and then`
	age := p.Now().Sub(b.Last.Time())
	found := fmt.Sprintf("the newest is %s old: %s", control.Span(age), b.Path)
	_, err := os.Stat(b.Path)
	switch {
	case b.Last == 0 && b.Error == "":
		if b.EverySeconds > 0 {
			r.Add(Finding{Name: "backup", State: Skip, Found: "the first has not been made yet"})
			return
		}
		r.Add(Finding{"backup", Warn, "none is known", remedy})
	case b.Error != "":
		r.Add(Finding{"backup", Fail, "the last one failed: " + b.Error, "look at backup.dir: is it there, may the server write in it, is there room"})
	case b.AfterError != "":
		r.Add(Finding{"backup", Warn, found + "; backup.after failed: " + b.AfterError, "run that command by hand as the user of the server, with PLANTOPS_BACKUP=" + b.Path})
	case errors.Is(err, fs.ErrNotExist) && !b.ByPerson:
		r.Add(Finding{"backup", Warn, found + ", and it is not there any more", "mount its disk, or " + remedy})
	case b.EverySeconds == 0 && age > backupIsOld:
		r.Add(Finding{"backup", Warn, found, remedy})
	case b.EverySeconds > 0 && age > 2*time.Duration(b.EverySeconds)*time.Second+time.Hour:
		r.Add(Finding{"backup", Warn, found, "the log says why there is no newer one: journalctl -u plantops | grep backup"})
	default:
		r.Add(Finding{Name: "backup", State: OK, Found: found})
	}
}
