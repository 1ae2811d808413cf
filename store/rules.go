package store

import (
	"fmt"

	"github.com/plantops/plantops/broker/topic"
)

// Bounds on the rules of an account: each is looked at for every topic that a client uses for the first time.
const (
	maxRules       = 1000
	maxFilterBytes = 1024
)

// ruleFilters are the filters that a rule may have. %u and %c stand for the names of the account and of the client, and
// are levels like others until then.
var ruleFilters = topic.Filters{MaxBytes: maxFilterBytes, NoControl: true, NoDollar: true}

// CheckFilter tells whether a rule may have this topic filter: MQTT's wildcards where MQTT has them, no topic that begins
// with $, no control characters, at most 1024 bytes. The error wraps ErrInvalidFilter and says what is wrong.
func CheckFilter(filter string) error {
	fault := ruleFilters.Fault(filter)
	why := fault.String()
	switch fault {
	case topic.Faultless:
		return nil
	case topic.FaultSize:
		why = fmt.Sprintf("it has %d bytes, 1 to %d are allowed", len(filter), maxFilterBytes)
	case topic.FaultDollar:
		why = "topics that begin with $ are not for rules; administrators read $SYS"
		if topic.Shared(filter) {
			why = "a rule names topics: leave out $share/GROUP/, who may subscribe to them may do so in a group"
		}
	}
	return fmt.Errorf("%w %.80q: %s", ErrInvalidFilter, filter, why)
}

// checkRules judges all rules of an account.
func checkRules(publish, subscribe []string) error {
	if n := len(publish) + len(subscribe); n > maxRules {
		return fmt.Errorf("%w: %d of them, at most %d are allowed", ErrInvalidFilter, n, maxRules)
	}
	for _, filters := range [][]string{publish, subscribe} {
		for _, filter := range filters {
			if err := CheckFilter(filter); err != nil {
				return err
			}
		}
	}
	return nil
}
