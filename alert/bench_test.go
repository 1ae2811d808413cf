package alert

import (
	"fmt"
	"testing"
	"time"
)

// What a look costs with 1,000 devices of three metrics and a plant each.
func BenchmarkStepOfAThousandDevices(b *testing.B) {
	s := &scene{rules: Rules{OfflineAfter: 3 * time.Minute, After: 5 * time.Minute}, now: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC), probes: map[string]*probe{}, open: map[int64]Alert{}}
	s.machine = New(s.rules, State{Box: "box"}, nil, nil)
	for i := range 1000 {
		s.add(fmt.Sprintf("bed-%04d", i), time.Minute, map[string]float64{"soil_moisture": 30, "temperature": 20, "humidity": 50})
	}
	s.plant(dry())
	s.run(10 * time.Minute)
	l := Look{Now: s.now, Passed: look, Plan: s.plan, Looked: true}
	for id, p := range s.probes {
		l.Devices = append(l.Devices, Device{id, p.seen})
		for _, r := range p.last {
			l.Readings = append(l.Readings, r)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		s.machine.Step(l)
	}
}
