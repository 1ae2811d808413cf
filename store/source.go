package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"iter"
	"math"
	"slices"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/pack"
	"github.com/plantops/plantops/store/tail"
)

// source is the readings of some devices as they were at one moment: in the tail, in blocks and in rows of table reading. What was
// stored before it was opened is there, once, whatever compaction does meanwhile: what moved in between stands in two places and
// is read once. It holds a read transaction, so it must be closed soon. It is for one goroutine.
//
// Of one device and time it gives one reading: where several places have something of it, the values are put together.
type source struct {
	s    *Store
	tail tail.Frozen
	tx   *sql.Tx
	rows bool // table reading has some

	spare []*block.Decoder
}

// source opens the readings of devices; none: of all.
func (s *Store) source(ctx context.Context, devices ...*device) (*source, error) {
	ids := make([]int64, len(devices))
	for i, d := range devices {
		ids[i] = d.id
	}
	for {
		db := s.db.Load()
		// The tail first: what leaves it is in the database already.
		src := &source{s: s, tail: s.tail.Load().Freeze(ids...)}
		var err error
		if src.tx, err = db.BeginTx(ctx, nil); err == nil {
			src.rows, err = s.anyRows(ctx, src.tx)
		}
		if err == nil {
			return src, nil
		}
		src.close()
		if s.db.Load() == db { // it was not made anew
			return nil, s.suspect(err)
		}
	}
}

func (src *source) close() {
	if src.tx != nil {
		_ = src.tx.Rollback() // it only reads
	}
}

func (src *source) each(ctx context.Context, row func(scan func(...any) error) error, query string, args ...any) error {
	return src.s.eachIn(ctx, src.tx, row, query, args...)
}

// blocks returns what blocks a device has with readings from a time on, which is included, to another, which is not, in order of
// their first. Damage says of which months it is not known.
func (src *source) blocks(ctx context.Context, d *device, from, to int64) (list []block.Meta, damage []*DamagedError, err error) {
	month, end, err := src.months(ctx)
	if err != nil {
		return nil, nil, err
	}
	if from > -maxBlockTime {
		month = max(month, block.Month(from))
	}
	if to < maxBlockTime {
		end = min(end, block.Month(to))
	}
	for ; month <= end; month++ {
		err := src.each(ctx, func(scan func(...any) error) error {
			var m block.Meta
			err := scan(&m.Key, &m.N, &m.First, &m.Last)
			list = append(list, m)
			return err
		}, `SELECT key, n, t0, t1 FROM block WHERE key BETWEEN ? AND ? AND t0 < ? AND t1 >= ?`,
			block.Key(month, d.id, 0), block.Key(month, d.id, maxBlockNumber), to, from)
		switch {
		case isDamage(err):
			damage = append(damage, &DamagedError{Device: d.name, From: block.MonthStart(month), To: block.MonthStart(month + 1), Cause: err})
		case err != nil:
			return nil, nil, err
		}
	}
	slices.SortFunc(list, func(a, b block.Meta) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Key, b.Key)) })
	return list, damage, nil
}

// months are the first and the last month of which there are blocks; the first is behind the last where there are none. Where an end
// of the table is damaged, it is any month of this project, and some that come.
func (src *source) months(ctx context.Context) (first, last int64, err error) {
	ends := [2]int64{block.Month(firstTime), block.Month(src.s.options.Now().UnixMilli()) + 12}
	for i, query := range []string{`SELECT min(key) FROM block`, `SELECT max(key) FROM block`} {
		var key sql.NullInt64
		err := src.each(ctx, func(scan func(...any) error) error { return scan(&key) }, query)
		switch {
		case err == nil && !key.Valid:
			return 1, 0, nil
		case err == nil:
			ends[i], _, _ = block.SplitKey(key.Int64)
		case !isDamage(err):
			return 0, 0, err
		}
	}
	return ends[0], ends[1], nil
}

// decode reads a block. A *DamagedError says that it cannot be read; other errors have nothing to do with it.
func (src *source) decode(ctx context.Context, d *device, m block.Meta, to *block.Decoder) error {
	return src.blob(ctx, d, m, `SELECT body FROM block WHERE key = ?`, func(body []byte) error { return to.Decode(m, body) })
}

// summary reads the summary of a block. A *DamagedError says that it cannot be read; the block itself may be whole.
func (src *source) summary(ctx context.Context, d *device, m block.Meta, to *block.Summary) error {
	return src.blob(ctx, d, m, `SELECT summary FROM block WHERE key = ?`, func(body []byte) error { return block.DecodeSummaryInto(to, m, body) })
}

func (src *source) blob(ctx context.Context, d *device, m block.Meta, query string, use func([]byte) error) error {
	var bad error
	err := src.each(ctx, func(scan func(...any) error) error {
		var body sql.RawBytes
		if err := scan(&body); err != nil {
			return err
		}
		bad = use(body)
		return nil
	}, query, m.Key)
	if err == nil {
		err = bad
	} else if !isDamage(err) {
		return err
	}
	if err != nil {
		return &DamagedError{Device: d.name, From: m.First, To: m.Last + 1, Cause: err}
	}
	return nil
}

// newest reads table newest: of each metric the latest value that is in a block, in order of time. One that is damaged is nil, and
// whole false: the values are in the blocks.
func (src *source) newest(ctx context.Context, d *device) (list []block.Reading, whole bool, err error) {
	whole = true
	err = src.each(ctx, func(scan func(...any) error) error {
		var body sql.RawBytes
		err := scan(&body)
		if err == nil {
			var bad error
			list, bad = decodeNewest(d.id, body)
			whole = bad == nil
		}
		return err
	}, `SELECT body FROM newest WHERE device = ?`, d.id)
	return list, whole, err
}

// readings yields the readings of a device from a time on, which is included, to another, which is not, in order of time. A reading
// is valid until the next one. What cannot be read is a *DamagedError, and not the end; any other error is.
func (src *source) readings(ctx context.Context, d *device, from, to int64) iter.Seq2[*block.Reading, error] {
	return func(yield func(*block.Reading, error) bool) {
		m := merger{ctx: ctx, src: src, device: d, from: from, to: to, yield: yield}
		if err := m.run(); err != nil {
			yield(nil, err)
		}
	}
}

// stream is one place with readings in order of time.
type stream interface {
	time() int64 // of the current one; math.MaxInt64: there is none any more
	read(*block.Reading)
	next() error
}

// merger makes one stream of several.
type merger struct {
	ctx      context.Context
	src      *source
	device   *device
	from, to int64
	yield    func(*block.Reading, error) bool

	open []stream
	out  block.Reading
	part block.Reading
}

var errStopped = errors.New("stopped")

func (m *merger) damaged(err *DamagedError) error {
	if !m.yield(nil, err) {
		return errStopped
	}
	return nil
}

func (m *merger) run() error {
	err := m.merge()
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}

func (m *merger) merge() error {
	blocks, damage, err := m.src.blocks(m.ctx, m.device, m.from, m.to)
	if err != nil {
		return err
	}
	for _, d := range damage {
		if err := m.damaged(d); err != nil {
			return err
		}
	}
	if m.src.rows {
		rows := &rowStream{m: m, from: m.from}
		if err := rows.fill(); err != nil {
			return err
		}
		m.open = append(m.open, rows)
	}
	if list := m.src.tail.Slice(m.device.id, m.from, m.to); list.Len() > 0 {
		m.open = append(m.open, &tailStream{list: list})
	}
	for {
		at := int64(math.MaxInt64)
		for _, s := range m.open {
			at = min(at, s.time())
		}
		for len(blocks) > 0 && (blocks[0].First <= at || at == math.MaxInt64) {
			s, err := m.openBlock(blocks[0])
			if err != nil {
				return err
			}
			if blocks = blocks[1:]; s != nil {
				m.open = slices.Insert(m.open, 0, stream(s)) // what is older counts first
				at = min(at, s.time())
			}
		}
		if at == math.MaxInt64 {
			return nil
		}
		if err := m.yieldAt(at); err != nil {
			return err
		}
	}
}

// yieldAt yields what all streams have of a time.
func (m *merger) yieldAt(at int64) error {
	parts, ended := 0, false
	for _, s := range m.open {
		for s.time() == at {
			if parts == 0 {
				m.out.Values = m.out.Values[:0]
				s.read(&m.out)
			} else {
				m.part.Values = m.part.Values[:0]
				s.read(&m.part)
				mergeInto(&m.out, &m.part)
			}
			parts++
			if err := s.next(); err != nil {
				return err
			}
		}
		ended = ended || s.time() == math.MaxInt64
	}
	if ended {
		m.open = slices.DeleteFunc(m.open, func(s stream) bool {
			b, isBlock := s.(*blockStream)
			if isBlock && b.at >= b.end {
				m.src.spare = append(m.src.spare, b.decoder)
			}
			return s.time() == math.MaxInt64
		})
	}
	m.out.Flags &^= flagExtra
	if !m.yield(&m.out, nil) {
		return errStopped
	}
	return nil
}

// openBlock is nil for a block that is damaged, which it has said.
func (m *merger) openBlock(meta block.Meta) (*blockStream, error) {
	dec := &block.Decoder{}
	if n := len(m.src.spare); n > 0 {
		dec, m.src.spare = m.src.spare[n-1], m.src.spare[:n-1]
	}
	err := m.src.decode(m.ctx, m.device, meta, dec)
	if damage, ok := errors.AsType[*DamagedError](err); ok {
		damage.From, damage.To = max(damage.From, m.from), min(damage.To, m.to)
		return nil, m.damaged(damage)
	}
	if err != nil {
		return nil, err
	}
	s := &blockStream{decoder: dec, times: dec.Times()}
	s.at, _ = slices.BinarySearch(s.times, m.from)
	s.end, _ = slices.BinarySearch(s.times, m.to)
	return s, nil
}

type blockStream struct {
	decoder *block.Decoder
	times   []int64
	at, end int
}

func (s *blockStream) time() int64 {
	if s.at >= s.end {
		return math.MaxInt64
	}
	return s.times[s.at]
}

func (s *blockStream) read(r *block.Reading) { *r = s.decoder.Reading(s.at, r.Values) }

func (s *blockStream) next() error {
	s.at++
	return nil
}

type tailStream struct {
	list tail.Slice
	at   int
}

func (s *tailStream) time() int64 {
	if s.at == s.list.Len() {
		return math.MaxInt64
	}
	return s.list.Time(s.at)
}

func (s *tailStream) read(r *block.Reading) { s.list.Read(s.at, r) }

func (s *tailStream) next() error {
	s.at++
	return nil
}

// rowStream reads table reading page by page.
type rowStream struct {
	m    *merger
	from int64
	list []block.Reading
	at   int
	last bool // there is no page after this one
}

func (s *rowStream) time() int64 {
	if s.at == len(s.list) {
		return math.MaxInt64
	}
	return s.list[s.at].Time
}

func (s *rowStream) read(r *block.Reading) {
	values := append(r.Values, s.list[s.at].Values...)
	*r = s.list[s.at]
	r.Values = values
}

func (s *rowStream) next() error {
	if s.at++; s.at < len(s.list) || s.last {
		return nil
	}
	return s.fill()
}

func (s *rowStream) fill() error {
	for s.list, s.at = s.list[:0], 0; len(s.list) == 0 && !s.last; {
		var err error
		s.list, err = s.m.src.rowsOf(s.m.ctx, s.m.device, s.list, s.from, s.m.to, pageRows)
		if err != nil && !isDamage(err) {
			return err
		}
		s.last = err == nil && len(s.list) < pageRows
		if n := len(s.list); n > 0 {
			s.from = s.list[n-1].Time + 1
		} else if err != nil {
			if err := s.pass(err); err != nil {
				return err
			}
		}
	}
	return nil
}

const selectRows = `SELECT time, received, flags, coalesce(given, ''), body FROM reading WHERE device = ? AND time >= ? AND time < ? `

// rowsOf appends rows of table reading, at most so many; before an error those that come before it.
func (src *source) rowsOf(ctx context.Context, d *device, list []block.Reading, from, to int64, limit int) ([]block.Reading, error) {
	return src.readRows(ctx, list, selectRows+`ORDER BY time LIMIT ?`, d.id, from, to, limit)
}

func (src *source) readRows(ctx context.Context, list []block.Reading, query string, args ...any) ([]block.Reading, error) {
	err := src.each(ctx, func(scan func(...any) error) error {
		var r block.Reading
		var body sql.RawBytes
		var flags int64
		err := scan(&r.Time, &r.Received, &flags, &r.Given, &body)
		if err != nil {
			return err
		}
		r.Flags = uint32(flags & flagsBelowLine)
		if r.Values, err = pack.Decode(nil, body); err != nil {
			return &rowError{r.Time}
		}
		sortValues(r.Values)
		list = append(list, r)
		return nil
	}, query, args...)
	return list, err
}

// pass goes on behind what cannot be read and says what that was. The error is one that has nothing to do with damage.
func (s *rowStream) pass(cause error) (err error) {
	bad := s.from
	var good int64
	if row, ok := errors.AsType[*rowError](cause); ok {
		bad, good = row.time, row.time+1
	} else if good, err = s.behind(bad); err != nil {
		return err
	}
	s.from, s.last = good, good >= s.m.to
	return s.m.damaged(&DamagedError{Device: s.m.device.name, From: bad, To: good, Cause: cause})
}

// behind returns the first time behind one that cannot be read.
func (s *rowStream) behind(bad int64) (good int64, err error) {
	readable := func(time int64) (ok bool) {
		if err == nil {
			ok, err = s.readable(time)
		}
		return ok
	}
	good = s.m.to
	for step := int64(1000); step > 0 && bad <= s.m.to-step; step *= 2 {
		if readable(bad + step) {
			good = bad + step
			break
		}
	}
	for low := bad; good-low > 1 && err == nil; {
		if middle := low + (good-low)/2; readable(middle) {
			good = middle
		} else {
			low = middle
		}
	}
	return good, err
}

// readable reports whether the row at a time, or the next one after it, can be read.
func (s *rowStream) readable(time int64) (bool, error) {
	_, err := s.m.src.rowsOf(s.m.ctx, s.m.device, nil, time, s.m.to, 1)
	if row := (*rowError)(nil); err == nil || errors.As(err, &row) {
		return true, nil
	}
	if isDamage(err) {
		return false, nil
	}
	return false, err
}
