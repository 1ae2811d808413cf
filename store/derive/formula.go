package derive

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ParseFormula reads a derived metric: a name, "=", and one of
//
//	vpd(TEMPERATURE, HUMIDITY)
//	dewpoint(TEMPERATURE, HUMIDITY)
//	dli(LIGHT) or dli(LIGHT, FACTOR)
//	a sum of metrics, factors and constants: 1.8*temperature + 32
//
// A name that has more in it than letters, digits, "_" and ".", or begins with a digit, stands in double quotes, as in Go.
func ParseFormula(text string) (Derived, error) {
	d, err := parseFormula(text)
	if err == nil {
		err = d.Check()
	}
	if err != nil {
		return Derived{}, fmt.Errorf("formula %q: %w", text, err)
	}
	return d, nil
}

func parseFormula(text string) (d Derived, err error) {
	p := parser{rest: text}
	if d.Name = p.name(); d.Name == "" || !p.take("=") {
		return d, errors.New("use NAME = FORMULA")
	}
	start := p.rest
	function := p.name()
	for k := range kinds {
		if function != "" && kinds[k].function == function && p.take("(") {
			d.Kind = Kind(k)
			return d, p.arguments(&d)
		}
	}
	p.rest = start
	return d, p.sum(&d)
}

type parser struct{ rest string }

// take goes past a token, if it is the next one.
func (p *parser) take(token string) bool {
	p.rest = strings.TrimLeftFunc(p.rest, unicode.IsSpace)
	rest, found := strings.CutPrefix(p.rest, token)
	if found {
		p.rest = rest
	}
	return found
}

// name takes the name of a metric or function, or nothing.
func (p *parser) name() string {
	p.take("")
	if strings.HasPrefix(p.rest, `"`) {
		quoted, err := strconv.QuotedPrefix(p.rest)
		if err != nil {
			return ""
		}
		name, err := strconv.Unquote(quoted)
		if err != nil || !utf8.ValidString(name) {
			return ""
		}
		p.rest = p.rest[len(quoted):]
		return name
	}
	n := 0
	for i, c := range p.rest {
		if !nameRune(c, i == 0) {
			break
		}
		n = i + utf8.RuneLen(c)
	}
	name := p.rest[:n]
	p.rest = p.rest[n:]
	return name
}

func nameRune(c rune, first bool) bool {
	return c != utf8.RuneError && (unicode.IsLetter(c) || c == '_' || !first && (unicode.IsDigit(c) || c == '.'))
}

// number takes a number without a sign.
func (p *parser) number() (float64, bool) {
	p.take("")
	n := 0
	for n < len(p.rest) && (strings.ContainsRune("0123456789.", rune(p.rest[n])) || n > 0 && (p.rest[n]|0x20 == 'e' || p.rest[n-1]|0x20 == 'e' && strings.ContainsRune("+-", rune(p.rest[n])))) {
		n++
	}
	v, err := strconv.ParseFloat(p.rest[:n], 64)
	if err != nil {
		return 0, false
	}
	p.rest = p.rest[n:]
	return v, true
}

func (p *parser) arguments(d *Derived) error {
	kind := kinds[d.Kind]
	for i, what := range kind.inputs {
		if i > 0 && !p.take(",") {
			return fmt.Errorf("%s needs %s", kind.function, strings.Join(kind.inputs, " and "))
		}
		name := p.name()
		if name == "" {
			return fmt.Errorf("%s needs the name of a metric for %s", kind.function, what)
		}
		d.Terms = append(d.Terms, Term{1, name})
	}
	if d.Kind == LightIntegral && p.take(",") {
		factor, ok := p.number()
		if !ok {
			return errors.New("the factor of dli is a number: what makes µmol/m²s of what the sensor sends")
		}
		d.Terms[0].Factor = factor
	}
	if !p.take(")") || !p.end() {
		return fmt.Errorf("%q is too much", p.rest)
	}
	return nil
}

func (p *parser) end() bool {
	p.take("")
	return p.rest == ""
}

// sum takes terms to the end.
func (p *parser) sum(d *Derived) error {
	for first := true; first || !p.end(); first = false {
		sign := 1.0
		switch {
		case p.take("-"):
			sign = -1
		case !p.take("+") && !first:
			return fmt.Errorf("%q: want + or -", p.rest)
		}
		factor, isNumber := p.number()
		if !isNumber {
			factor = 1
		}
		name := ""
		if !isNumber || p.take("*") {
			if name = p.name(); name == "" {
				return fmt.Errorf("%q: want a number or a metric, whose name is in double quotes if it is no plain word", p.rest)
			}
		}
		if name == "" {
			d.Constant += sign * factor
			continue
		}
		if !isNumber && p.take("*") {
			if factor, isNumber = p.number(); !isNumber {
				return fmt.Errorf("%q: want a number", p.rest)
			}
		}
		d.Terms = append(d.Terms, Term{sign * factor, name})
	}
	return nil
}

// String is what ParseFormula reads.
func (d *Derived) String() string {
	var b strings.Builder
	b.WriteString(quote(d.Name) + " = ")
	if d.Kind != Linear {
		b.WriteString(kinds[d.Kind].function + "(")
		for i, t := range d.Terms {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(quote(t.Metric))
			if t.Factor != 1 {
				b.WriteString(", " + number(t.Factor))
			}
		}
		b.WriteString(")")
		return b.String()
	}
	for i, t := range d.Terms {
		b.WriteString(sign(t.Factor, i == 0))
		if f := abs(t.Factor); f != 1 {
			b.WriteString(number(f) + "*")
		}
		b.WriteString(quote(t.Metric))
	}
	if d.Constant != 0 {
		b.WriteString(sign(d.Constant, false) + number(abs(d.Constant)))
	}
	return b.String()
}

func sign(v float64, first bool) string {
	switch {
	case first && v < 0:
		return "-"
	case first:
		return ""
	case v < 0:
		return " - "
	}
	return " + "
}

func abs(v float64) float64 { return max(v, -v) }

// quote puts a name in double quotes where it needs them.
func quote(name string) string {
	for i, c := range name {
		if !nameRune(c, i == 0) {
			return strconv.Quote(name)
		}
	}
	return name
}
