package store

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/derive"
	"github.com/plantops/plantops/store/history"
)

func TestCorrectionsOutliveARestart(t *testing.T) {
	options := Options{Path: filepath.Join(t.TempDir(), "plantops.db"), Now: func() time.Time { return time.UnixMilli(noon) }}
	s, err := Open(t.Context(), options)
	require.NoError(t, err)
	mustAppend(t, s, telemetry("bed", noon, Value{"soil", 512}))

	points := derive.Points{{Raw: 300, True: 100}, {Raw: 700, True: 0.5}}
	first, err := s.Calibrate(t.Context(), derive.Calibration{Device: "bed", Metric: "soil", From: noon, Points: points, Note: "in water"})
	require.NoError(t, err)
	second, err := s.Calibrate(t.Context(), derive.Calibration{Device: "bed", Metric: "soil", From: noon, Points: points[:1]})
	require.NoError(t, err)
	other, err := s.Calibrate(t.Context(), derive.Calibration{Device: "bed", Metric: "not sent yet", From: -5})
	require.NoError(t, err)
	assert.Equal(t, []int{1, 2, 1}, []int{first.Version, second.Version, other.Version})
	void, err := s.Void(t.Context(), derive.Void{Device: "bed", Metric: "soil", From: noon, To: noon + 1, Reason: "in the sink"})
	require.NoError(t, err)
	endless, err := s.Void(t.Context(), derive.Void{Device: "bed", From: noon})
	require.NoError(t, err)
	require.NoError(t, s.Unvoid(t.Context(), void.ID))
	void.Undone = noon
	formulas := []string{"dew = dewpoint(air, humidity)", "wet = 2*soil + 1"}
	var derived []derive.Derived
	for _, text := range formulas {
		d, err := derive.ParseFormula(text)
		require.NoError(t, err)
		require.NoError(t, s.Derive(t.Context(), d))
		derived = append(derived, d)
	}
	derived[1].Constant = 5
	require.NoError(t, s.Derive(t.Context(), derived[1]))
	require.NoError(t, s.Close())

	options.ReadOnly = true
	s, err = Open(t.Context(), options)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	got, err := s.Corrections(t.Context())
	require.NoError(t, err)
	other.Points = derive.Points{}
	assert.Equal(t, Corrections{[]derive.Calibration{other, first, second}, []derive.Void{void, endless}, derived}, got)
	assert.Equal(t, []int64{noon, noon}, []int64{first.Created, void.Created})
	rules := s.loadRules(t.Context())
	require.NoError(t, rules.err)
	_, lines, ok := rules.Lines("bed", "soil", noon-2, noon-1)
	assert.True(t, ok && len(lines) == 0)
	_, _, ok = rules.Lines("bed", "soil", noon, noon)
	assert.False(t, ok, "all of the device is voided")
}

func TestACorrectionThatCannotBeIsRefused(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed", noon, Value{"soil", 512}))
	wet, err := derive.ParseFormula("wet = 2*soil")
	require.NoError(t, err)
	require.NoError(t, s.Derive(t.Context(), wet))
	before, err := s.Corrections(t.Context())
	require.NoError(t, err)

	_, err = s.Calibrate(t.Context(), derive.Calibration{Device: "shed", Metric: "soil"})
	assert.ErrorIs(t, err, ErrNotFound)
	_, err = s.Calibrate(t.Context(), derive.Calibration{Device: "bed", Metric: "soil\xff"})
	assert.ErrorContains(t, err, "must be UTF-8")
	_, err = s.Calibrate(t.Context(), derive.Calibration{Device: "bed"})
	assert.ErrorContains(t, err, "needs a device and a metric")
	_, err = s.Calibrate(t.Context(), derive.Calibration{Device: "bed", Metric: "wet"})
	assert.ErrorContains(t, err, "it is derived")
	_, err = s.Void(t.Context(), derive.Void{Device: "shed"})
	assert.ErrorIs(t, err, ErrNotFound)
	_, err = s.Void(t.Context(), derive.Void{Device: "bed", From: 5, To: 5})
	assert.ErrorContains(t, err, "ends before it begins")
	assert.ErrorIs(t, s.Unvoid(t.Context(), 7), ErrNotFound)
	assert.ErrorIs(t, s.RemoveDerived(t.Context(), "dry"), ErrNotFound)
	for text, want := range map[string]string{"soil = 2*air": "which a device sends", "loop = 2*loop": "needs itself"} {
		d, err := derive.ParseFormula(text)
		if err == nil {
			err = s.Derive(t.Context(), d)
		}
		assert.ErrorContains(t, err, want)
	}
	circle, err := derive.ParseFormula("more = 2*wet")
	require.NoError(t, err)
	require.NoError(t, s.Derive(t.Context(), circle))
	wet.Terms[0].Metric = "more"
	assert.ErrorContains(t, s.Derive(t.Context(), wet), "needs itself")
	require.NoError(t, s.RemoveDerived(t.Context(), "more"))
	after, err := s.Corrections(t.Context())
	require.NoError(t, err)
	assert.Equal(t, before, after)
}

func TestCorrectionsGoWithTheirDevice(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed", noon, Value{"soil", 512}), telemetry("shed", noon, Value{"soil", 512}))
	for _, device := range []string{"bed", "shed"} {
		_, err := s.Calibrate(t.Context(), derive.Calibration{Device: device, Metric: "soil"})
		require.NoError(t, err)
		_, err = s.Void(t.Context(), derive.Void{Device: device})
		require.NoError(t, err)
	}
	_, err := s.PurgeDevice(t.Context(), "bed")
	require.NoError(t, err)
	c, err := s.Corrections(t.Context())
	require.NoError(t, err)
	require.Len(t, c.Calibrations, 1)
	require.Len(t, c.Voids, 1)
	assert.Equal(t, "shed", c.Calibrations[0].Device)
}

func TestReadingsAreReadCorrected(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed", noon, Value{"soil", 512}, Value{"air", 20}), telemetry("bed", noon+1, Value{"soil", 512}))
	read := func(raw bool) (list []string) {
		v, err := s.View(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, v.Close()) }()
		for r, err := range v.Readings(t.Context(), history.Query{Raw: raw}) {
			require.NoError(t, err)
			list = append(list, fmt.Sprint(r.Time-noon, " ", r.Metric, " ", r.Value))
		}
		return list
	}
	raw := []string{"0 air 20", "0 soil 512", "1 soil 512"}
	assert.Equal(t, raw, read(false))
	_, err := s.Calibrate(t.Context(), derive.Calibration{Device: "bed", Metric: "soil", From: noon + 1, Points: derive.Points{{Raw: 512, True: 40}}})
	require.NoError(t, err)
	assert.Equal(t, []string{"0 air 20", "0 soil 512", "1 soil 40"}, read(false))
	void, err := s.Void(t.Context(), derive.Void{Device: "bed", Metric: "soil", From: noon, To: noon + 1, Reason: "dry"})
	require.NoError(t, err)
	assert.Equal(t, []string{"0 air 20", "1 soil 40"}, read(false))
	latest, err := s.Latest(t.Context(), "bed")
	require.NoError(t, err)
	require.Len(t, latest, 2)
	assert.Equal(t, 40.0, latest[1].Value)
	require.NoError(t, s.Unvoid(t.Context(), void.ID))
	double, err := derive.ParseFormula("wet = soil + air")
	require.NoError(t, err)
	require.NoError(t, s.Derive(t.Context(), double))
	assert.Equal(t, []string{"0 air 20", "0 soil 512", "0 wet 532", "1 soil 40"}, read(false))
	assert.Equal(t, raw, read(true))
	require.NoError(t, s.RemoveDerived(t.Context(), "wet"))
	_, err = s.PurgeDevice(t.Context(), "bed")
	require.NoError(t, err)
	_, lines, ok := s.rules.Load().Lines("bed", "soil", noon+1, noon+1)
	assert.True(t, ok && len(lines) == 0, "another device may get its name")
	assert.Empty(t, read(false))
}

func TestADamagedCorrectionIsSaid(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed", noon, Value{"soil", 512}))
	require.NoError(t, s.acquire(t.Context()))
	require.NoError(t, s.transact(func() error { return s.w.setDerived.run("x", "x = ") }))
	s.release()
	_, err := s.Corrections(t.Context())
	assert.ErrorIs(t, err, ErrDamaged)
	assert.ErrorContains(t, err, `"x"`)
}
