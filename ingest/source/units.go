package source

import (
	"maps"
	"slices"
)

// unit turns a unit into the one that readings have.
type unit struct{ scale, offset float64 }

// units are what people's sensors send beside the units that readings have: °C, %, hPa, V, A, W, kWh, m/s, mm, lx.
var units = map[string]unit{
	"F":    {5.0 / 9, -160.0 / 9},
	"K":    {1, -273.15},
	"Pa":   {0.01, 0},
	"kPa":  {10, 0},
	"inHg": {33.8638866667, 0},
	"mV":   {0.001, 0},
	"mA":   {0.001, 0},
	"kW":   {1000, 0},
	"Wh":   {0.001, 0},
	"km/h": {1 / 3.6, 0},
	"mph":  {0.44704, 0},
	"in":   {25.4, 0},
	"cm":   {10, 0},
	"klx":  {1000, 0},
}

// Units are those that Field.Unit may have.
func Units() []string { return slices.Sorted(maps.Keys(units)) }
