package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/plantops/plantops/store"
)

// Finding is something in a file that is not as it was written.
type Finding struct {
	Where string `json:"where"`
	What  string `json:"what"`
}

// Text is the finding in one line.
func (f Finding) Text() string { return f.Where + ": " + f.What }

// Report is what Check found.
type Report struct {
	Path     string        `json:"path"`
	Bytes    int64         `json:"bytes"`
	Schema   int64         `json:"schema"`
	Older    bool          `json:"older_schema"` // what is in the blobs was not read: a start brings the file up to date first
	Backup   *Info         `json:"backup"`       // nil: it is a database, no backup
	Devices  int64         `json:"devices"`
	Messages int64         `json:"messages"` // with readings
	Findings []Finding     `json:"findings"` // empty: all is well
	Took     time.Duration `json:"-"`

	files []File
}

func (r *Report) add(where, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{where, fmt.Sprintf(format, args...)})
}

// CheckOptions say how to check.
type CheckOptions struct {
	Told Told // may be nil
}

// mostFindings is how many are looked for; more say nothing new.
const mostFindings = 100

// Check reads all of a file, also one that a server is writing: SQLite's own check, its foreign keys, every blob, the counters, and
// the files in a backup. What it finds is in the report. The error says that it could not be checked: store.ErrForeign,
// store.ErrNewerSchema, fs.ErrNotExist.
func Check(ctx context.Context, path string, o CheckOptions) (Report, error) {
	began := time.Now()
	r := Report{Path: path, Findings: []Finding{}}
	err := r.checkFile(ctx, path, o)
	if err == nil && !r.Older {
		err = r.checkContent(ctx, path, o)
	}
	r.Took = time.Since(began)
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	if errors.Is(err, store.ErrDamaged) {
		r.add("the file", "%v", err)
		err = nil
	}
	if err != nil {
		return r, fmt.Errorf("check %s: %w", path, err)
	}
	return r, nil
}

// checkFile is what SQLite can tell.
func (r *Report) checkFile(ctx context.Context, path string, o CheckOptions) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	r.Bytes = info.Size()
	return database{path: path}.read(ctx, func(conn *sql.Conn) error {
		var err error
		if r.Schema, err = identify(ctx, conn); err != nil {
			return err
		}
		r.Older = r.Schema < store.LatestSchema()
		o.Told.tell("check the pages", 0, 0)
		trees, err := readTrees(ctx, conn)
		if err != nil {
			return err
		}
		if err := r.checkPages(ctx, conn, trees); err != nil {
			return err
		}
		if len(r.Findings) > 0 {
			return nil // what else it says would come from that
		}
		if err := r.checkKeys(ctx, conn); err != nil {
			return err
		}
		r.Backup, r.files, err = readInfo(ctx, conn)
		return err
	})
}

// checkPages is SQLite's own check. Of what it says of one page, the first line is enough.
func (r *Report) checkPages(ctx context.Context, conn *sql.Conn, trees trees) error {
	pages := map[string]bool{}
	return each(ctx, conn, fmt.Sprintf(`PRAGMA integrity_check(%d)`, mostFindings), func(scan func(...any) error) error {
		var text string
		if err := scan(&text); err != nil {
			return err
		}
		for line := range strings.SplitSeq(text, "\n") {
			if line == "ok" || line == "" || strings.HasPrefix(line, "*** in database") {
				continue
			}
			if page := pageNumber.FindString(line); page != "" {
				if pages[page] {
					continue
				}
				pages[page] = true
			}
			r.add(trees.of(line), "%s", line)
		}
		return nil
	})
}

// checkKeys looks for rows that refer to what is not there.
func (r *Report) checkKeys(ctx context.Context, conn *sql.Conn) error {
	dangling := map[string]int{}
	err := each(ctx, conn, `SELECT "table", parent FROM pragma_foreign_key_check`, func(scan func(...any) error) error {
		var table, parent string
		err := scan(&table, &parent)
		dangling["table "+table+"\x00"+parent]++
		return err
	})
	for key, n := range dangling {
		table, parent, _ := strings.Cut(key, "\x00")
		r.add(table, "%d rows refer to rows of table %s that are not there", n, parent)
	}
	return err
}

// checkContent is what only package store can tell.
func (r *Report) checkContent(ctx context.Context, path string, o CheckOptions) error {
	db, err := store.Open(ctx, store.Options{Path: path, ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // it only reads
	e, err := db.Examine(ctx, func(done, of int) { o.Told.tell("read what is stored", int64(done), int64(of)) })
	r.Devices, r.Messages = e.Devices, e.Readings
	for _, f := range e.Findings {
		r.Findings = append(r.Findings, Finding(f))
	}
	return err
}

// trees are the names of tables and indexes by the number of their first page, by which SQLite's check calls them.
type trees map[string]string

func readTrees(ctx context.Context, conn *sql.Conn) (trees, error) {
	t := trees{}
	err := each(ctx, conn, `SELECT type, tbl_name, rootpage FROM sqlite_schema WHERE rootpage > 0`, func(scan func(...any) error) error {
		var kind, table, root string
		err := scan(&kind, &table, &root)
		name := "table " + table
		if kind == "index" {
			name = "an index of table " + table
		}
		t[root] = name
		return err
	})
	return t, err
}

var pageNumber = regexp.MustCompile(`(?i)page \d+`)

var treeNumber = regexp.MustCompile(`(?i)tree (?:page )?(\d+)`)

// of is where a line of SQLite's check has its finding.
func (t trees) of(line string) string {
	if match := treeNumber.FindStringSubmatch(line); match != nil && t[match[1]] != "" {
		return t[match[1]]
	}
	return "the file"
}
