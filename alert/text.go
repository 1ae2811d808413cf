package alert

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// units of metrics that have one by their name.
var units = map[string]string{"soil_moisture": " %", "humidity": " %", "temperature": " °C", "soil_temperature": " °C", "light_level": " lx", "pressure": " hPa", "co2": " ppm"}

// Value writes the value of a metric with its unit.
func Value(metric string, v float64) string {
	unit := units[metric]
	if isBattery(metric) {
		unit = " %"
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + unit
}

// words make a name of a metric readable.
func words(metric string) string { return strings.ReplaceAll(metric, "_", " ") }

// Title is a notice in a few words.
func (n *Notice) Title() string {
	a := &n.Alert
	what := a.title()
	switch {
	case n.What == Lasts:
		return "Still: " + what
	case n.What == Ends && a.Gone:
		return "No longer watched: " + what
	case n.What == Ends:
		return "Over: " + what
	}
	return what
}

func (a *Alert) title() string {
	switch a.Kind {
	case Threshold:
		side := "too low"
		if a.Side == Max {
			side = "too high"
		}
		return fmt.Sprintf("%s: %s %s", a.Name, words(a.Metric), side)
	case Offline:
		return a.Name + " is offline"
	case Silent:
		return fmt.Sprintf("%s sends no %s", a.Name, words(a.Metric))
	case Stuck:
		return fmt.Sprintf("%s: %s does not change", a.Name, words(a.Metric))
	case Battery:
		return a.Name + ": battery low"
	case Certificate:
		return "Certificate expires"
	case Clock:
		return "Clock not set"
	case Disk:
		return "Disk nearly full"
	case Backup:
		return "Backup overdue"
	case Quarantine:
		return "Messages that could not be stored"
	}
	return string(a.Kind)
}

// Body is a notice in a sentence or two. Times are those of zone.
func (n *Notice) Body(zone *time.Location) string {
	a := &n.Alert
	since := clock(a.Opened, zone)
	if n.What == Ends {
		if a.Gone {
			return fmt.Sprintf("Nobody watches this any more; it had begun on %s.", since)
		}
		return fmt.Sprintf("It lasted from %s to %s.", since, clock(a.Closed, zone))
	}
	text := a.Text
	switch a.Kind {
	case Threshold, Battery:
		text = fmt.Sprintf("%s is %s, the limit is %s (%s)", words(a.Metric), a.value(), Value(a.Metric, *cmp.Or(a.Limit, new(float64))), a.Device)
	case Offline, Silent:
		text = "heard of last on " + clock(a.Seen, zone)
	case Stuck:
		text = fmt.Sprintf("%s has been %s for long, while others vary: is the sensor broken?", words(a.Metric), a.value())
	}
	return fmt.Sprintf("Since %s: %s.", since, strings.TrimSuffix(text, "."))
}

func (a *Alert) value() string { return Value(a.Metric, *cmp.Or(a.Value, new(float64))) }

func clock(ms int64, zone *time.Location) string {
	return time.UnixMilli(ms).In(zone).Format("2006-01-02 15:04")
}

// Title is a message in a few words.
func (m *Message) Title() string {
	if len(m.Notices) == 1 && m.More == 0 {
		return m.Notices[0].Title()
	}
	var begins, ends int
	for i := range m.Notices {
		if m.Notices[i].What == Ends {
			ends++
		} else {
			begins++
		}
	}
	begins += m.More
	switch {
	case ends == 0:
		return fmt.Sprintf("%d alerts", begins)
	case begins == 0:
		return fmt.Sprintf("%d alerts are over", ends)
	}
	return fmt.Sprintf("%d alerts, %d are over", begins, ends)
}

// mostLines is how many notices the text of a message has.
const mostLines = 20

// Body is a message in one line for each notice.
func (m *Message) Body(zone *time.Location) string {
	if len(m.Notices) == 1 && m.More == 0 {
		return m.Notices[0].Body(zone)
	}
	var b strings.Builder
	for i := range min(len(m.Notices), mostLines) {
		n := &m.Notices[i]
		fmt.Fprintf(&b, "%s %s\n", time.UnixMilli(n.At).In(zone).Format("15:04"), n.Title())
	}
	if rest := len(m.Notices) - mostLines + m.More; rest > 0 {
		fmt.Fprintf(&b, "and %d more\n", rest)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
