package derive

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Kind is the formula of a derived metric.
type Kind int

const (
	// Linear is a sum of metrics, each times a factor, and of a constant.
	Linear Kind = iota

	// VapourPressureDeficit is in kPa, of an air temperature in °C and a relative humidity in %: how much more water vapour the air
	// could take. Saturation vapour pressure after Tetens, 0.6108 exp(17.27 t / (t + 237.3)) kPa: Allen, Pereira, Raes, Smith: Crop
	// evapotranspiration, FAO Irrigation and Drainage Paper 56 (1998), equation 11.
	VapourPressureDeficit

	// DewPoint is in °C, of an air temperature in °C and a relative humidity in %: by the Magnus formula over water with the
	// constants 17.62 and 243.12 °C of the Guide to Instruments and Methods of Observation, WMO-No. 8, annex 4.B, after Sonntag (1990).
	DewPoint

	// LightIntegral is in mol/m² and day, of a photosynthetic photon flux density in µmol/m²s: the light that came since the last
	// midnight of a place, so that the last or largest value of a day is its daily light integral. Lines are drawn between readings
	// (trapezoidal rule), and none where there is more than an hour from one to the next. Factor makes µmol/m²s of what the sensor
	// sends: of lux in daylight it is about 1/54 (Thimijan and Heins, HortScience 18(6), 1983, table 3).
	LightIntegral
)

// Where the formulas of humid air hold (WMO-No. 8, annex 4.B). Outside there is no value.
const (
	coldest, warmest = -45, 60 // °C
)

var kinds = []struct {
	function, unit string
	inputs         []string // what they are
}{
	Linear:                {"", "", nil},
	VapourPressureDeficit: {"vpd", "kPa", []string{"temperature", "humidity"}},
	DewPoint:              {"dewpoint", "°C", []string{"temperature", "humidity"}},
	LightIntegral:         {"dli", "mol/m²/d", []string{"light"}},
}

// maxTerms of a linear formula.
const maxTerms = 32

// Term is a metric and what it is multiplied by.
type Term struct {
	Factor float64
	Metric string
}

// Derived is a metric that is computed when it is read, from metrics of the same device at the same time. Where one of them is
// missing it has no value. What a device sends under the same
// name is stored, and not seen but by who reads raw values.
type Derived struct {
	Name     string
	Kind     Kind
	Terms    []Term  // one for each input of the kind; only those of Linear, and of LightIntegral, have a factor other than 1
	Constant float64 // of Linear
}

// Unit is that of the values, "" if it is not known.
func (d *Derived) Unit() string { return kinds[d.Kind].unit }

// Inputs are the metrics that it is computed from.
func (d *Derived) Inputs() (list []string) {
	for _, t := range d.Terms {
		list = append(list, t.Metric)
	}
	return list
}

// Check says what a derived metric lacks.
func (d *Derived) Check() error {
	if err := d.check(); err != nil {
		return fmt.Errorf("derived metric %q: %w", d.Name, err)
	}
	return nil
}

func (d *Derived) check() error {
	if d.Name == "" {
		return errors.New("needs a name")
	}
	if d.Kind < 0 || int(d.Kind) >= len(kinds) {
		return fmt.Errorf("kind %d is not known", d.Kind)
	}
	if want := kinds[d.Kind].inputs; d.Kind != Linear && len(d.Terms) != len(want) {
		return fmt.Errorf("%d metrics, want %d: %v", len(d.Terms), len(want), want)
	}
	if len(d.Terms) == 0 || len(d.Terms) > maxTerms {
		return fmt.Errorf("%d metrics, want 1 to %d", len(d.Terms), maxTerms)
	}
	for i, t := range d.Terms {
		switch {
		case t.Metric == "":
			return errors.New("a metric without a name")
		case t.Metric == d.Name:
			return errors.New("needs itself")
		case slices.ContainsFunc(d.Terms[:i], func(o Term) bool { return o.Metric == t.Metric }):
			return fmt.Errorf("metric %q is there twice", t.Metric)
		case !finite(t.Factor):
			return fmt.Errorf("metric %q: %v is no factor", t.Metric, t.Factor)
		case d.Kind == LightIntegral && t.Factor <= 0:
			return fmt.Errorf("metric %q: the factor from what the sensor sends to µmol/m²s must be above 0", t.Metric)
		case (d.Kind == VapourPressureDeficit || d.Kind == DewPoint) && t.Factor != 1:
			return fmt.Errorf("metric %q: takes no factor", t.Metric)
		}
	}
	if !finite(d.Constant) || d.Kind != Linear && d.Constant != 0 {
		return fmt.Errorf("%v is no constant of it", d.Constant)
	}
	return nil
}

// at is the value where all inputs are there. It is NaN where there is none; it may be infinite.
func (d *Derived) at(inputs []float64) float64 {
	switch d.Kind {
	case VapourPressureDeficit:
		return vapourPressureDeficit(inputs[0], inputs[1])
	case DewPoint:
		return dewPoint(inputs[0], inputs[1])
	}
	// One metric: the same operations as those of a line, so that summaries give what readings give.
	sum := float64(inputs[0] * d.Terms[0].Factor)
	for i, t := range d.Terms[1:] {
		sum += float64(inputs[i+1] * t.Factor)
	}
	return sum + d.Constant
}

// humid is a relative humidity as a ratio. Sensors in wet air say somewhat more than 100 %.
func humid(percent float64) float64 { return min(percent, 100) / 100 }

func vapourPressureDeficit(temperature, humidity float64) float64 {
	if temperature < coldest || temperature > warmest || humidity < 0 {
		return math.NaN()
	}
	return 0.6108 * math.Exp(17.27*temperature/(temperature+237.3)) * (1 - humid(humidity))
}

func dewPoint(temperature, humidity float64) float64 {
	if temperature < coldest || temperature > warmest || humidity <= 0 {
		return math.NaN()
	}
	const b, c = 17.62, 243.12
	gamma := math.Log(humid(humidity)) + b*temperature/(c+temperature)
	return c * gamma / (b - gamma)
}
