package brokertest

import (
	"reflect"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/config"
)

// Limits completes some limits: those that are 0 are as the configuration has them by default.
func Limits(some broker.Limits) broker.Limits {
	all := broker.Limits(config.Default().Limits)
	from, to := reflect.ValueOf(some), reflect.ValueOf(&all).Elem()
	for i := range from.NumField() {
		if !from.Field(i).IsZero() {
			to.Field(i).Set(from.Field(i))
		}
	}
	return all
}
