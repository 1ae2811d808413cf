package store

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/pack"
	"github.com/plantops/plantops/store/tail"
)

// What a view has of a device stands in the tail, in blocks and in rows of table reading. The tail was frozen before the view's
// transaction began, so what moved in between stands in two places; of one device and time the values are put together, and one
// reading is given.

// blocks returns what blocks a device has with readings from a time on, which is included, to another, which is not, in order of
// their first. Damage says of which months it is not known.
func (v *view) blocks(ctx context.Context, d named, from, to int64) (list []block.Meta, damage []*DamagedError, err error) {
	month, end, err := v.monthsOf(ctx, from, to)
	if err != nil {
		return nil, nil, err
	}
	for ; month <= end; month++ {
		err := v.query(ctx, func(row []driver.Value) error {
			m, err := metaOf(row)
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

// monthsOf is months of a time.
func (v *view) monthsOf(ctx context.Context, from, to int64) (first, last int64, err error) {
	if first, last, err = v.months(ctx); err != nil {
		return 0, 0, err
	}
	if from > -maxBlockTime {
		first = max(first, block.Month(from))
	}
	if to < maxBlockTime {
		last = min(last, block.Month(to))
	}
	return first, last, nil
}

// months are the first and the last month of which there are blocks; the first is behind the last where there are none. Where an end
// of the table is damaged, it is any month of this project, and some that come.
func (v *view) months(ctx context.Context) (first, last int64, err error) {
	ends := [2]int64{block.Month(firstTime), block.Month(v.s.options.Now().UnixMilli()) + 12}
	for i, query := range []string{`SELECT min(key) FROM block`, `SELECT max(key) FROM block`} {
		key, there := int64(0), false
		err := v.query(ctx, func(row []driver.Value) error {
			key, there = row[0].(int64)
			return nil
		}, query)
		switch {
		case err == nil && !there:
			return 1, 0, nil
		case err == nil:
			ends[i], _, _ = block.SplitKey(key)
		case !isDamage(err):
			return 0, 0, err
		}
	}
	return ends[0], ends[1], nil
}

func metaOf(row []driver.Value) (m block.Meta, err error) {
	key, ok1 := row[0].(int64)
	n, ok2 := row[1].(int64)
	first, ok3 := row[2].(int64)
	last, ok4 := row[3].(int64)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return m, fmt.Errorf("%w: a row of table block", ErrDamaged)
	}
	return block.Meta{Key: key, N: int(n), First: first, Last: last}, nil
}

// decode reads a block. A *DamagedError says that it cannot be read; other errors have nothing to do with it.
func (v *view) decode(ctx context.Context, d named, m block.Meta, to *block.Decoder) error {
	return v.blob(ctx, d, m, `SELECT body FROM block WHERE key = ?`, func(body []byte) error { return to.Decode(m, body) })
}

// summary reads the summary of a block. A *DamagedError says that it cannot be read; the block itself may be whole.
func (v *view) summary(ctx context.Context, d named, m block.Meta, to *block.Summary) error {
	return v.blob(ctx, d, m, `SELECT summary FROM block WHERE key = ?`, func(body []byte) error { return block.DecodeSummaryInto(to, m, body) })
}

func (v *view) blob(ctx context.Context, d named, m block.Meta, query string, use func([]byte) error) error {
	var bad error
	err := v.query(ctx, func(row []driver.Value) error {
		body, _ := row[0].([]byte)
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
func (v *view) newest(ctx context.Context, d named) (list []block.Reading, whole bool, err error) {
	whole = true
	err = v.query(ctx, func(row []driver.Value) error {
		body, _ := row[0].([]byte)
		var bad error
		list, bad = decodeNewest(d.id, body)
		whole = bad == nil
		return nil
	}, `SELECT body FROM newest WHERE device = ?`, d.id)
	if isDamage(err) {
		list, whole, err = nil, false, nil
	}
	return list, whole, err
}

// merged yields the readings of a device from a time on, which is included, to another, which is not, in order of time. A reading
// is valid until the next one. What cannot be read is a *DamagedError, and not the end; any other error is.
func (v *view) merged(ctx context.Context, d named, from, to int64) iter.Seq2[*block.Reading, error] {
	return func(yield func(*block.Reading, error) bool) {
		m := merger{ctx: ctx, v: v, device: d, from: from, to: to, yield: yield}
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
	v        *view
	device   named
	from, to int64
	yield    func(*block.Reading, error) bool

	open  []stream
	spare []*block.Decoder
	out   block.Reading
	part  block.Reading
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
	blocks, damage, err := m.v.blocks(m.ctx, m.device, m.from, m.to)
	if err != nil {
		return err
	}
	for _, d := range damage {
		if err := m.damaged(d); err != nil {
			return err
		}
	}
	if m.v.rows {
		rows := &rowStream{m: m, from: m.from}
		if err := rows.fill(); err != nil {
			return err
		}
		m.open = append(m.open, rows)
	}
	if list := m.v.tail.Slice(m.device.id, m.from, m.to); list.Len() > 0 {
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
				m.spare = append(m.spare, b.decoder)
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
	if n := len(m.spare); n > 0 {
		dec, m.spare = m.spare[n-1], m.spare[:n-1]
	}
	err := m.v.decode(m.ctx, m.device, meta, dec)
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
		s.list, err = s.m.v.readRows(s.m.ctx, s.list, upwards, s.m.device, s.from, s.m.to, pageRows)
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

const (
	selectRows = `SELECT time, received, flags, coalesce(given, ''), body FROM reading WHERE device = ? AND time >= ? AND time < ? `
	upwards    = selectRows + `ORDER BY time LIMIT ?`
	downwards  = selectRows + `ORDER BY time DESC LIMIT ?`
)

// readRows appends rows of table reading, at most so many; before an error those that come before it. In a damaged file a value may
// be of any type.
func (v *view) readRows(ctx context.Context, list []block.Reading, query string, d named, from, to, limit int64) ([]block.Reading, error) {
	err := v.query(ctx, func(row []driver.Value) error {
		at, isTime := row[0].(int64)
		received, ok1 := row[1].(int64)
		flags, ok2 := row[2].(int64)
		given, ok3 := row[3].(string)
		body, ok4 := row[4].([]byte)
		if !isTime || at < from || at >= to {
			return pack.ErrDamaged
		}
		values, err := pack.Decode(nil, body)
		if err != nil || !ok1 || !ok2 || !ok3 || !ok4 {
			return &rowError{at}
		}
		sortValues(values)
		list = append(list, block.Reading{Time: at, Received: received, Flags: uint32(flags & flagsBelowLine), Given: given, Values: values})
		return nil
	}, query, d.id, from, to, limit)
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
	_, err := s.m.v.readRows(s.m.ctx, nil, upwards, s.m.device, time, s.m.to, 1)
	if row := (*rowError)(nil); err == nil || errors.As(err, &row) {
		return true, nil
	}
	if isDamage(err) {
		return false, nil
	}
	return false, err
}

// latestValues returns of each metric of a device the latest value, in order of time. list is what table newest has of it, if that is
// whole.
func (v *view) latestValues(ctx context.Context, d named, list []block.Reading, whole bool) (_ []block.Reading, err error) {
	if !whole { // the values are in the blocks
		list, err = v.latestInBlocks(ctx, d)
	}
	if err == nil && v.rows {
		var rows []block.Reading
		rows, err = v.readRows(ctx, nil, downwards, d, math.MinInt64, math.MaxInt64, latestRows)
		if isDamage(err) && len(rows)+len(list) > 0 { // what is damaged further back is not the newest
			err = nil
		}
		slices.Reverse(rows)
		list = latest(list, rows)
	}
	if err != nil {
		return nil, err
	}
	return latest(list, v.tail.Latest(d.id)), nil
}

// latestInBlocks is for a device whose row in table newest is damaged.
func (v *view) latestInBlocks(ctx context.Context, d named) (list []block.Reading, err error) {
	for r, err := range v.merged(ctx, d, math.MinInt64, math.MaxInt64) {
		if damage := (*DamagedError)(nil); errors.As(err, &damage) {
			continue
		}
		if err != nil {
			return nil, err
		}
		one := *r
		one.Values = slices.Clone(r.Values)
		list = latest(list, []block.Reading{one})
	}
	return list, nil
}
