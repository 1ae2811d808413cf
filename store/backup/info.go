package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/plantops/plantops/store"
)

// File is a file that goes along in a backup.
type File struct {
	Name    string // below the folder that it is of, with slashes
	Mode    fs.FileMode
	Content []byte
}

// Info is what a backup says about itself.
type Info struct {
	Made    time.Time `json:"made"`
	Unsure  bool      `json:"clock_unsure,omitempty"` // Made is by a clock that was not to be trusted
	Version string    `json:"version"`                // of the program
	Host    string    `json:"host"`
	By      string    `json:"by"` // ByPerson or BySchedule
	Files   []string  `json:"files"`
}

// Who made a backup.
const (
	ByPerson   = "command"
	BySchedule = "schedule"
)

// The tables of a backup that a database has not. They are gone when it is restored.
const infoSchema = `
CREATE TABLE backup_info (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE backup_file (name TEXT NOT NULL PRIMARY KEY, mode INTEGER NOT NULL, checksum INTEGER NOT NULL, content BLOB NOT NULL) STRICT;`

// write calls do with a connection to a copy that nobody else uses. What is broken off is thrown away, so it needs no journal.
func write(ctx context.Context, path string, do func(*sql.Conn) error) error {
	db, conn, err := connect(ctx, dsn(path, "rw", false, "journal_mode(memory)", "synchronous(off)", "secure_delete(1)"))
	if err != nil {
		return explain(err)
	}
	if _, err = conn.ExecContext(ctx, `BEGIN IMMEDIATE`); err == nil {
		if err = do(conn); err == nil {
			_, err = conn.ExecContext(ctx, `COMMIT`)
		}
	}
	return explain(errors.Join(err, conn.Close(), db.Close()))
}

// writeInfo adds to a copy what it is and which files go along.
func writeInfo(ctx context.Context, path string, o Options) error {
	return write(ctx, path, func(conn *sql.Conn) error {
		if err := dropInfo(ctx, conn); err != nil { // a backup of a file that was put in place by hand
			return err
		}
		if _, err := conn.ExecContext(ctx, infoSchema); err != nil {
			return err
		}
		for name, value := range map[string]string{
			"made": o.Now.UTC().Format(time.RFC3339), "unsure": strconv.FormatBool(o.Unsure), "version": o.Version, "host": o.Host, "by": o.By,
		} {
			if _, err := conn.ExecContext(ctx, `INSERT INTO backup_info (name, value) VALUES (?, ?)`, name, value); err != nil {
				return err
			}
		}
		for _, f := range o.Files {
			content := f.Content
			if content == nil {
				content = []byte{}
			}
			_, err := conn.ExecContext(ctx, `INSERT INTO backup_file (name, mode, checksum, content) VALUES (?, ?, ?, ?)`,
				f.Name, int64(f.Mode.Perm()), checksum(content), content)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func checksum(content []byte) int64 {
	return int64(crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli)))
}

func dropInfo(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, `DROP TABLE IF EXISTS backup_info; DROP TABLE IF EXISTS backup_file`)
	return err
}

// readInfo returns what a backup says about itself, with the files in it; nil when it is no backup. A file whose checksum is
// wrong is an error.
func readInfo(ctx context.Context, conn *sql.Conn) (*Info, []File, error) {
	there, err := number(ctx, conn, `SELECT count(*) FROM sqlite_schema WHERE name IN ('backup_info', 'backup_file')`)
	if err != nil || there < 2 {
		return nil, nil, err
	}
	info := &Info{}
	err = each(ctx, conn, `SELECT name, value FROM backup_info`, func(scan func(...any) error) error {
		var name, value string
		if err := scan(&name, &value); err != nil {
			return err
		}
		switch name {
		case "made":
			info.Made, _ = time.Parse(time.RFC3339, value) // zero says that it is not known
		case "unsure":
			info.Unsure = value == "true"
		case "version":
			info.Version = value
		case "host":
			info.Host = value
		case "by":
			info.By = value
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	var files []File
	err = each(ctx, conn, `SELECT name, mode, checksum, content FROM backup_file ORDER BY name`, func(scan func(...any) error) error {
		var f File
		var mode, sum int64
		if err := scan(&f.Name, &mode, &sum, &f.Content); err != nil {
			return err
		}
		if sum != checksum(f.Content) {
			return fmt.Errorf("%w: the file %s in it", store.ErrDamaged, f.Name)
		}
		f.Mode = fs.FileMode(mode).Perm()
		files, info.Files = append(files, f), append(info.Files, f.Name)
		return nil
	})
	return info, files, err
}

// each calls scanned for every row.
func each(ctx context.Context, conn *sql.Conn, query string, scanned func(scan func(...any) error) error) error {
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	for rows.Next() {
		if err := scanned(rows.Scan); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

// maxFiles and maxFileBytes bound what goes along: a folder of certificates has a few small files.
const (
	maxFiles     = 1000
	maxFileBytes = 8 << 20
)

// ReadFiles returns the files in a folder, without those in folders below it and those that are not files. A folder that is not
// there has none.
func ReadFiles(dir string) (files []File, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || entry.Name()[0] == '.' { // a dot: on its way to be written
			continue
		}
		if info.Size() > maxFileBytes || len(files) == maxFiles {
			return nil, fmt.Errorf("%s: more than belongs into a folder of certificates", filepath.Join(dir, entry.Name()))
		}
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // renewed this moment
		}
		if err != nil {
			return nil, err
		}
		files = append(files, File{Name: entry.Name(), Mode: info.Mode().Perm(), Content: content})
	}
	return files, nil
}
