package store

import "fmt"

type creationStatements struct {
	insertDeviceAs, insertMetricAs *statement

	insertDevice, insertCounter, insertMetric *statement
}

func (q *creationStatements) all() []compile {
	return []compile{
		// An id that was another's is never given out again: a damaged file that is still searched may have readings of it.
		{&q.insertDevice, `INSERT INTO device (id, name, created) VALUES (1 + max((SELECT coalesce(max(id), 0) FROM device),
			(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'device')), ?, ?)`},
		{&q.insertDeviceAs, `INSERT INTO device (id, name, created) VALUES (?, ?, ?)`},
		{&q.insertMetricAs, `INSERT INTO metric (id, name, device) VALUES (?, ?, ?)`},
		{&q.insertCounter, `INSERT INTO counter (device) VALUES (?)`},
		{&q.insertMetric, `INSERT INTO metric (id, name, device) VALUES (1 + max((SELECT coalesce(max(id), 0) FROM metric),
			(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'metric')), ?, ?)`},
	}
}

// createDevice gives a name that is new its rows, inside the running transaction.
func (s *Store) createDevice(name string) (*device, error) {
	created := s.options.Now().UnixMilli()
	result, err := s.w.insertDevice.exec(name, created)
	if err != nil {
		return nil, fmt.Errorf("create device %q: %w", name, err)
	}
	id, _ := result.LastInsertId()
	return s.adoptDevice(id, name, created)
}

// createDeviceAs gives a device that readings know by its id, and nobody by its name, its rows.
func (s *Store) createDeviceAs(id int64, name string) (*device, error) {
	if err := s.w.insertDeviceAs.run(id, name, int64(0)); err != nil {
		return nil, fmt.Errorf("create device %q: %w", name, err)
	}
	return s.adoptDevice(id, name, 0)
}

func (s *Store) adoptDevice(id int64, name string, created int64) (*device, error) {
	if err := s.w.insertCounter.run(id); err != nil {
		return nil, fmt.Errorf("create counters of device %q: %w", name, err)
	}
	d := &device{id: id, name: name, created: created}
	s.tx.devices = append(s.tx.devices, d)
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.devices[name], s.state.byID[id] = d, d
	return d, nil
}

// createMetric gives a metric name that is new its row; d brought it.
func (s *Store) createMetric(d *device, name string) (uint32, error) {
	result, err := s.w.insertMetric.exec(name, d.id)
	if err != nil {
		return 0, fmt.Errorf("create metric %q: %w", name, err)
	}
	rowid, _ := result.LastInsertId()
	id := uint32(rowid) // at most maxDevices * maxMetrics
	s.adoptMetric(d, id, name)
	return id, nil
}

// createMetricAs gives a metric that readings know by its id, and nobody by its name, its row.
func (s *Store) createMetricAs(d *device, id uint32, name string) error {
	if err := s.w.insertMetricAs.run(int64(id), name, d.id); err != nil {
		return fmt.Errorf("create metric %q: %w", name, err)
	}
	s.adoptMetric(d, id, name)
	return nil
}

func (s *Store) adoptMetric(d *device, id uint32, name string) {
	s.tx.metrics = append(s.tx.metrics, newMetric{name, d})
	d.metrics++
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.metrics[name], s.state.names[id] = id, name
}
