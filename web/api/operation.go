package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/plantops/plantops/store/people"
)

// maxBody is how long a body may be, in bytes.
const maxBody = 64 << 10

// operation is one way to ask. huma.Register would make one too, but a copy of itself for each: 30 kB of code. So its parts are used.
type operation struct {
	method, path string
	tag, summary string
	about        string      // more than the summary; may be empty
	needs        people.Role // ""; anybody, who may be nobody
	params       []*huma.Param
	body         any // a value of the type of the body; nil: none is read
	bodyless     bool
	answer       any // a value of the type of the answer; nil: none
	status       int // 0: 200
	stream       string
	errors       []int
	do           func(c *call) (any, error)
}

// call is one time that it is asked. It is over when do returns.
type call struct {
	*API
	context.Context
	r      *http.Request
	w      http.ResponseWriter
	name   string      // of who asks
	role   people.Role // of who asks
	values map[string]any
	body   any // a pointer
}

// streamed says that the answer was written already.
type streamed struct{}

// withStatus is an answer with another status than the operation's.
type withStatus struct {
	status int
	body   any
}

func (c *call) text(name string) string    { s, _ := c.values[name].(string); return s }
func (c *call) texts(name string) []string { s, _ := c.values[name].([]string); return s }
func (c *call) flag(name string) bool      { b, _ := c.values[name].(bool); return b }

// number is that of an integer parameter, 0 without one.
func (c *call) number(name string) int { n, _ := c.values[name].(int); return n }

// bodyOf is the body of a call, whose operation has one of that type.
func bodyOf[T any](c *call) *T { return c.body.(*T) }

// Parameters

func path(name, about string) *huma.Param {
	return &huma.Param{Name: name, In: "path", Description: about, Required: true, Schema: &huma.Schema{Type: huma.TypeString}}
}

func query(name, about string, s huma.Schema) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: about, Schema: &s}
}

func text() huma.Schema { return huma.Schema{Type: huma.TypeString} }

func texts() huma.Schema {
	most := 100
	return huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}, MaxItems: &most}
}

func flag() huma.Schema { return huma.Schema{Type: huma.TypeBoolean, Default: false} }

// integer is one between two bounds. A default outside of them is none.
func integer(least, most float64, byDefault int) huma.Schema {
	s := huma.Schema{Type: huma.TypeInteger, Minimum: &least, Maximum: &most}
	if float64(byDefault) >= least && float64(byDefault) <= most {
		s.Default = byDefault
	}
	return s
}

// add adds an operation to router and description.
func (b *routes) add(op operation) {
	if op.status == 0 {
		op.status = http.StatusOK
	}
	registry := b.huma.OpenAPI().Components.Schemas
	schema := func(of any) *huma.Schema { return registry.Schema(reflect.TypeOf(of), true, "") }
	d := &huma.Operation{Method: op.method, Path: op.path, Tags: []string{op.tag}, Summary: op.summary, Description: op.about,
		OperationID: operationID(op.method, op.path), Parameters: op.params, Responses: map[string]*huma.Response{}}
	for _, p := range op.params {
		p.Schema.PrecomputeMessages()
		if p.Schema.Items != nil {
			p.Schema.Items.PrecomputeMessages()
		}
	}
	right := &huma.Response{Description: http.StatusText(op.status), Content: map[string]*huma.MediaType{}}
	if op.answer != nil {
		right.Content["application/json"] = &huma.MediaType{Schema: schema(op.answer)}
	}
	if op.stream != "" {
		right.Content[op.stream] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	}
	d.Responses[strconv.Itoa(op.status)] = right
	if op.needs != "" {
		d.Security = []map[string][]string{{"token": {}}, {"session": {}}}
		d.Description = strings.TrimSpace(d.Description + "\n\nRole: " + string(op.needs) + ".")
		op.errors = append(op.errors, http.StatusUnauthorized, http.StatusForbidden)
	}
	var of *huma.Schema
	if op.body != nil {
		of = schema(op.body)
		d.RequestBody = &huma.RequestBody{Required: !op.bodyless, Content: map[string]*huma.MediaType{"application/json": {Schema: of}}}
		op.errors = append(op.errors, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if op.body != nil || len(op.params) > 0 {
		op.errors = append(op.errors, http.StatusUnprocessableEntity)
	}
	for _, status := range op.errors {
		d.Responses[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status),
			Content: map[string]*huma.MediaType{"application/problem+json": {Schema: schema(huma.ErrorModel{})}}}
	}
	b.huma.OpenAPI().AddOperation(d)
	b.huma.Adapter().Handle(d, func(asked huma.Context) { b.serve(&op, of, asked) })
}

// operationID is for instance get-plants-id-history.
func operationID(method, path string) string {
	return strings.ToLower(method) + strings.NewReplacer("/", "-", "{", "", "}", "").Replace(path)
}

func (b *routes) serve(op *operation, body *huma.Schema, asked huma.Context) {
	r, w := humago.Unwrap(asked)
	c := &call{API: b.API, Context: r.Context(), r: r, w: w, values: map[string]any{}}
	known := false
	c.name, c.role, known = b.Who(c)
	if op.needs != "" && !known {
		w.Header().Set("WWW-Authenticate", `Bearer realm="plantops"`)
		problem(w, http.StatusUnauthorized, "log in, or send a token: Authorization: Bearer TOKEN (plantops token add NAME --role ROLE makes one)")
		return
	}
	if op.needs != "" && !c.role.May(op.needs) {
		problem(w, http.StatusForbidden, "this takes the role "+string(op.needs)+"; "+c.name+" has "+string(c.role))
		return
	}
	faults := &huma.ValidateResult{}
	at := huma.NewPathBuffer([]byte{}, 0)
	b.readParams(op, c, at, faults)
	if op.body != nil {
		if err := b.readBody(op, c, body, at, faults); err != nil {
			b.fail(w, r, err)
			return
		}
	}
	if len(faults.Errors) > 0 {
		detail, list := describe(faults.Errors)
		problem(w, http.StatusUnprocessableEntity, detail, list...)
		return
	}
	answer, err := op.do(c)
	if err != nil {
		b.fail(w, r, err)
		return
	}
	status := op.status
	switch other := answer.(type) {
	case streamed:
		return
	case withStatus:
		status, answer = other.status, other.body
	}
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(answer); err != nil && c.Err() == nil {
		b.Log.Error("an answer could not be written", "path", r.URL.Path, "err", err)
	}
}

// describe is one sentence of all faults, and the faults without the values: they are what was sent.
func describe(all []error) (detail string, list []*huma.ErrorDetail) {
	const most = 20
	var words []string
	for _, err := range all[:min(len(all), most)] {
		one := &huma.ErrorDetail{Message: err.Error()}
		var d huma.ErrorDetailer
		if errors.As(err, &d) {
			one = &huma.ErrorDetail{Message: d.ErrorDetail().Message, Location: d.ErrorDetail().Location}
		}
		word := one.Message
		if one.Location != "" {
			word = one.Location + ": " + word
		}
		words, list = append(words, word), append(list, one)
	}
	return strings.Join(words, "; "), list
}

func (b *routes) readParams(op *operation, c *call, at *huma.PathBuffer, faults *huma.ValidateResult) {
	asked := c.r.URL.Query()
	for _, p := range op.params {
		given := asked[p.Name]
		if p.In == "path" {
			given = []string{c.r.PathValue(p.Name)}
		}
		at.Push(p.In)
		at.Push(p.Name)
		switch {
		case len(given) == 0 && p.Required:
			faults.Add(at, nil, "it must be given")
		case len(given) == 0:
			if p.Schema.Default != nil {
				c.values[p.Name] = p.Schema.Default
			}
		case len(given) > 1 && p.Schema.Type != huma.TypeArray:
			faults.Add(at, nil, "it is given more than once")
		default:
			if v, err := parse(p.Schema, given); err != nil {
				faults.Add(at, nil, err.Error())
			} else {
				huma.Validate(b.huma.OpenAPI().Components.Schemas, p.Schema, at, huma.ModeWriteToServer, v, faults)
				c.values[p.Name] = v
			}
		}
		at.Pop()
		at.Pop()
	}
}

// parse reads a parameter. A list may be given with commas too.
func parse(s *huma.Schema, given []string) (any, error) {
	switch s.Type {
	case huma.TypeInteger:
		n, err := strconv.Atoi(strings.TrimSpace(given[0]))
		if err != nil {
			return nil, errors.New("expected integer")
		}
		return n, nil
	case huma.TypeBoolean:
		v, err := strconv.ParseBool(given[0])
		if err != nil {
			return nil, errors.New("expected true or false")
		}
		return v, nil
	case huma.TypeArray:
		return given, nil
	}
	return given[0], nil
}

// readBody reads the body into c. An error is that of a body that is none; what is wrong in it is among the faults.
func (b *routes) readBody(op *operation, c *call, schema *huma.Schema, at *huma.PathBuffer, faults *huma.ValidateResult) error {
	target := reflect.New(reflect.TypeOf(op.body))
	c.body = target.Interface()
	raw, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return refuse(http.StatusRequestEntityTooLarge, "the body may have "+strconv.Itoa(maxBody)+" bytes")
	case err != nil:
		return refuse(http.StatusBadRequest, "the body did not come whole")
	case len(raw) == 0 && op.bodyless:
		return nil
	}
	if kind, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); c.r.Header.Get("Content-Type") != "" && (err != nil || kind != "application/json") {
		return refuse(http.StatusUnsupportedMediaType, "send JSON, with Content-Type: application/json")
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return refuse(http.StatusUnprocessableEntity, "the body is no JSON: "+err.Error())
	}
	registry := b.huma.OpenAPI().Components.Schemas
	value = numbers(registry, schema, value)
	at.Push("body")
	huma.Validate(registry, schema, at, huma.ModeWriteToServer, value, faults)
	at.Pop()
	if len(faults.Errors) > 0 {
		return nil
	}
	if raw, err = json.Marshal(value); err == nil {
		err = json.Unmarshal(raw, c.body)
	}
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, "the body is not as described: "+err.Error())
	}
	return nil
}

// numbers makes numbers of texts that are numbers, where numbers are expected, as the old system did.
func numbers(registry huma.Registry, s *huma.Schema, value any) any {
	for s.Ref != "" {
		s = registry.SchemaFromRef(s.Ref)
	}
	switch v := value.(type) {
	case string:
		if s.Type == huma.TypeNumber || s.Type == huma.TypeInteger {
			if n, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil {
				return n
			}
		}
	case map[string]any:
		for name, one := range s.Properties {
			if _, there := v[name]; there {
				v[name] = numbers(registry, one, v[name])
			}
		}
	case []any:
		if s.Items != nil {
			for i := range v {
				v[i] = numbers(registry, s.Items, v[i])
			}
		}
	}
	return value
}
