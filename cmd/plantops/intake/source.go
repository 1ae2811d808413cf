package intake

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/plantops/plantops/cmd/plantops/histories"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/foreign"
)

// headBytes is how much of a file tells what it is.
const headBytes = 64 << 10

// source is an open file.
type source struct {
	format   histories.Format
	key      string // names the file
	identity string // changes when the file does, or is read in another way
	read     func(histories.Place) (histories.Reader, error)
	done     func(histories.Reader) float64 // of what is to be read, from 0 to 1
	close    func()
}

func openSource(ctx context.Context, path string, format histories.Format, o histories.Options) (*source, error) {
	whole, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(whole)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	head := make([]byte, headBytes)
	if err == nil {
		var n int
		if n, err = io.ReadFull(file, head); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
		}
		head = head[:n]
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	s := &source{format: format, key: digest(whole)}
	options := optionsText(o)
	if histories.IsSQLite(head) {
		_ = file.Close() // what it could say, reading has said
		err = s.openDatabase(ctx, whole, o)
		s.identity = digest(string(s.format), options) // its program may be writing it
		return s, err
	}
	if histories.IsParquet(head) {
		s.openParquet(file, info.Size(), o)
	} else if err = s.openText(file, info.Size(), head, o); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	s.identity = digest(string(s.format), options, fmt.Sprint(info.Size(), info.ModTime().UnixNano()))
	return s, nil
}

// optionsText tells options that read the same from others.
func optionsText(o histories.Options) string {
	names, zone := fmt.Sprintf("%+v", o.Map), fmt.Sprint(o.Zone)
	o.Map, o.Zone, o.CheckDevice = nil, nil, nil // pointers are others each time
	return fmt.Sprintf("%+v %s %s", o, names, zone)
}

func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func (s *source) openParquet(file *os.File, size int64, o histories.Options) {
	s.format = histories.Parquet
	s.close = func() { _ = file.Close() } // it was only read
	s.done = func(r histories.Reader) float64 { return r.(interface{ Share() float64 }).Share() }
	s.read = func(place histories.Place) (histories.Reader, error) {
		r, err := histories.NewParquet(file, size, place, o)
		if err != nil {
			err = fmt.Errorf("%s: %w", file.Name(), err)
		}
		return r, err
	}
}

// counted counts what is read of a file, which may go on in another goroutine.
type counted struct {
	io.Reader
	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (s *source) openText(file *os.File, size int64, head []byte, o histories.Options) (err error) {
	packed := histories.IsGzip(head)
	if packed {
		if head, err = unpackHead(file); err != nil {
			return err
		}
		if histories.IsSQLite(head) {
			return control.WithHint(fmt.Errorf("%s is a packed SQLite file", file.Name()), "unpack it first: gunzip -k "+file.Name())
		}
	}
	if s.format == "" {
		if s.format, err = histories.Detect(head, o); err != nil {
			return fmt.Errorf("%s: %w", file.Name(), err)
		}
	}
	if s.format == "" {
		return control.WithHint(fmt.Errorf("%s: %w", file.Name(), errUnknown),
			"say what it is: --format csv, jsonl, influx or thingspeak; for CSV also --time COLUMN and --device COLUMN or =NAME")
	}
	in := &counted{Reader: file}
	s.close = func() { _ = file.Close() } // it was only read
	s.done = func(histories.Reader) float64 { return float64(in.n.Load()) / float64(max(size, 1)) }
	s.read = func(place histories.Place) (histories.Reader, error) {
		start := place.Offset
		if packed {
			start = 0
		}
		if _, err := file.Seek(start, io.SeekStart); err != nil {
			return nil, err
		}
		in.n.Store(start)
		var text io.Reader = in
		if packed {
			unpacked, err := gzip.NewReader(bufio.NewReaderSize(in, 1<<16))
			if err != nil {
				return nil, fmt.Errorf("unpack %s: %w", file.Name(), err)
			}
			if _, err := io.CopyN(io.Discard, unpacked, place.Offset); err != nil {
				return nil, fmt.Errorf("unpack %s: %w", file.Name(), err)
			}
			text = unpacked
		}
		r, err := histories.NewText(s.format, text, place, o)
		if err != nil {
			err = fmt.Errorf("%s: %w", file.Name(), err)
		}
		return r, err
	}
	return nil
}

var errUnknown = errors.New("what is in it cannot be told for certain")

// unpackHead returns the beginning of what gzip has packed.
func unpackHead(file *os.File) ([]byte, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	in, err := gzip.NewReader(file)
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", file.Name(), err)
	}
	head := make([]byte, headBytes)
	n, err := io.ReadFull(in, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("unpack %s: %w", file.Name(), err)
	}
	return head[:n], nil
}

func (s *source) openDatabase(ctx context.Context, path string, o histories.Options) error {
	file, err := foreign.Open(ctx, path)
	if err != nil {
		return databaseError(err, path)
	}
	tables, err := file.Tables(ctx)
	if err == nil && s.format == "" {
		if s.format = histories.DatabaseFormat(tables); s.format == "" {
			err = fmt.Errorf("%s has the tables of no program that is known here", path)
		}
	}
	if err != nil {
		return errors.Join(databaseError(err, path), file.Close())
	}
	if s.format == histories.Database {
		_ = file.Close() // it was only read
		return s.openOurs(ctx, path, o)
	}
	s.close = func() { _ = file.Close() }
	var last int64
	for _, query := range []string{`SELECT coalesce(max(state_id), 0) FROM states`, `SELECT coalesce(max(rowid), 0) FROM reading`} {
		_ = file.Each(ctx, func(row []any) error { last, _ = row[0].(int64); return nil }, query) // one of them fails, and it is for the progress only
	}
	s.done = func(r histories.Reader) float64 { return float64(r.Place().Line) / float64(max(last, 1)) }
	s.read = func(place histories.Place) (histories.Reader, error) {
		r, err := histories.NewRows(ctx, s.format, file, place, o)
		return r, databaseError(err, path)
	}
	return nil
}

func databaseError(err error, path string) error {
	switch {
	case errors.Is(err, foreign.ErrBusy):
		return control.WithHint(err, "another program uses it, or this user may not write beside it: stop the program, or import a copy: sqlite3 "+path+" \".backup copy.db\"")
	case errors.Is(err, foreign.ErrDamaged):
		return control.WithHint(err, "save what can be saved first: sqlite3 "+path+" .recover | sqlite3 new.db")
	}
	return err
}

// openOurs opens a database of this program.
func (s *source) openOurs(ctx context.Context, path string, o histories.Options) error {
	db, err := store.Open(ctx, store.Options{Path: path, ReadOnly: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return control.WithHint(err, "a database of an earlier version is brought up to date by a start of \"plantops serve\" on a copy of it")
	}
	s.close = func() { _ = db.Close() } // read only: nothing that could get lost
	var last float64
	devices, err := db.Devices(ctx)
	if err != nil {
		return errors.Join(err, db.Close())
	}
	for _, d := range devices {
		last = max(last, float64(d.LastReading))
	}
	s.done = func(r histories.Reader) float64 {
		own := r.(*ours)
		return (float64(own.place.Offset) - own.first) / max(last-own.first, 1)
	}
	s.read = func(place histories.Place) (histories.Reader, error) {
		r := newOurs(ctx, db, place, o)
		closeDB := s.close
		s.close = func() { r.stop(); closeDB() }
		return r, nil
	}
	return nil
}
