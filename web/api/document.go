package api

import (
	"bufio"
	_ "embed" // the style sheet
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plantops/plantops/store/people"
)

//go:embed assets/docs.css
var styleSheet []byte

// documents are the description for programs, and the page for people. Both are written anew each time, piece by piece: they are seldom
// asked for, and whole they would be what takes the most memory here.
func (b *routes) documents() []operation {
	return []operation{
		{method: http.MethodGet, path: Prefix + "/openapi.json", tag: tagSystem, needs: people.Viewer, summary: "This description, as OpenAPI 3.1",
			stream: "application/openapi+json", do: func(c *call) (any, error) {
				defer c.giveBack()
				return c.send("application/openapi+json", b.describe)
			}},
		{method: http.MethodGet, path: Prefix + "/docs", tag: tagSystem, needs: people.Viewer, summary: "This description, for people", stream: "text/html",
			do: func(c *call) (any, error) { return c.send("text/html; charset=utf-8", b.page) }},
		{method: http.MethodGet, path: Prefix + "/docs/style.css", tag: tagSystem, summary: "The style sheet of that page", stream: "text/css",
			do: func(c *call) (any, error) {
				return c.send("text/css; charset=utf-8", func(w *bufio.Writer) { _, _ = w.Write(styleSheet) })
			}},
	}
}

// send writes what write writes.
func (c *call) send(kind string, write func(*bufio.Writer)) (any, error) {
	c.w.Header().Set("Content-Type", kind)
	w := bufio.NewWriter(c.w)
	write(w)
	_ = w.Flush() // who asked may have gone
	return streamed{}, nil
}

// describe writes what OpenAPI.MarshalJSON would make: that copies every part once for each level above it, four megabytes in all.
func (b *routes) describe(w *bufio.Writer) {
	d := b.huma.OpenAPI()
	piece := func(before string, of any) {
		text, err := json.Marshal(of)
		if err != nil {
			panic(err) // the description is ours
		}
		_, _ = w.WriteString(before)
		_, _ = w.Write(text)
	}
	piece(`{"openapi":`, d.OpenAPI)
	piece(`,"info":`, d.Info)
	piece(`,"components":{"securitySchemes":`, d.Components.SecuritySchemes)
	schemas := d.Components.Schemas.Map()
	before := `,"schemas":{`
	for _, name := range sortedNames(schemas) {
		piece(before, name)
		piece(":", schemas[name])
		before = ","
	}
	before = `}},"paths":{`
	for _, at := range paths(d) {
		piece(before, at)
		before = ":{"
		for _, o := range operationsOf(d.Paths[at]) {
			piece(before, strings.ToLower(o.Method))
			piece(":", o)
			before = ","
		}
		before = "},"
	}
	_, _ = w.WriteString("}}}")
}

// giveBackEvery is how often memory is given back behind a description at most.
const giveBackEvery = time.Minute

// giveBack lets go of the three megabytes that a description takes for a moment: the collector would come for them when there are many more.
func (a *API) giveBack() {
	last, now := a.given.Load(), a.now()
	if now-last >= giveBackEvery.Milliseconds() && a.given.CompareAndSwap(last, now) {
		debug.FreeOSMemory()
	}
}

// page is the description as HTML that needs nothing from elsewhere, and no script.
func (b *routes) page(w *bufio.Writer) {
	d := b.huma.OpenAPI()
	p := &htmlPage{w}
	p.put(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>PlantOps API</title><link rel="stylesheet" href="docs/style.css"></head><body><main><h1>PlantOps API</h1><p>%s</p>
<p>For programs: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1). Version %s.</p>`, d.Info.Description, d.Info.Version)
	for _, tag := range []string{tagSystem, tagDevices, tagPlants, tagReadings, tagPlaces, tagRepair, tagPeople} {
		p.put("<h2>%s</h2>\n", tag)
		for _, at := range paths(d) {
			for _, o := range operationsOf(d.Paths[at]) {
				if slices.Contains(o.Tags, tag) {
					p.operation(at, o)
				}
			}
		}
	}
	p.put("<h2>Shapes</h2>\n")
	schemas := d.Components.Schemas.Map()
	for _, name := range sortedNames(schemas) {
		p.put(`<details id="shape-%s"><summary>%s</summary>`, name, name)
		p.properties(schemas[name])
		p.put("</details>\n")
	}
	p.put("</main></body></html>\n")
}

// htmlPage is written piece by piece. Every text in it is escaped.
type htmlPage struct{ *bufio.Writer }

func (p *htmlPage) put(format string, texts ...string) {
	escaped := make([]any, len(texts))
	for i, t := range texts {
		escaped[i] = html.EscapeString(t)
	}
	fmt.Fprintf(p, format, escaped...)
}

func (p *htmlPage) operation(at string, o *huma.Operation) {
	p.put(`<details><summary><b>%s</b> <code>%s</code> %s</summary>`, o.Method, at, o.Summary)
	for paragraph := range strings.SplitSeq(o.Description, "\n\n") {
		if paragraph != "" {
			p.put("<p>%s</p>", paragraph)
		}
	}
	if len(o.Parameters) > 0 {
		p.put("<table><caption>Parameters</caption>")
		for _, one := range o.Parameters {
			p.put("<tr><th><code>%s</code></th><td>%s, %s</td><td>%s</td></tr>", one.Name, one.In, kindOf(one.Schema), one.Description)
		}
		p.put("</table>")
	}
	if o.RequestBody != nil {
		for _, m := range o.RequestBody.Content {
			p.put("<p>Body: ")
			p.shape(m.Schema)
			p.put("</p>")
		}
	}
	p.put("<table><caption>Answers</caption>")
	for _, status := range sortedNames(o.Responses) {
		r := o.Responses[status]
		p.put("<tr><th>%s</th><td>%s</td><td>", status, r.Description)
		for _, kind := range sortedNames(r.Content) {
			p.put("<code>%s</code> ", kind)
			p.shape(r.Content[kind].Schema)
			p.put(" ")
		}
		p.put("</td></tr>")
	}
	p.put("</table></details>\n")
}

// shape names a schema, with where it is described.
func (p *htmlPage) shape(s *huma.Schema) {
	switch {
	case s == nil:
	case s.Ref != "":
		name := s.Ref[strings.LastIndex(s.Ref, "/")+1:]
		p.put(`<a href="#shape-%s">%s</a>`, name, name)
	case s.Type == huma.TypeArray && s.Items != nil:
		p.put("list of ")
		p.shape(s.Items)
	default:
		p.put("%s", kindOf(s))
	}
}

func (p *htmlPage) properties(s *huma.Schema) {
	p.put("<table>")
	for _, name := range sortedNames(s.Properties) {
		one := s.Properties[name]
		p.put("<tr><th><code>%s</code></th><td>", name)
		p.shape(one)
		need := ""
		if slices.Contains(s.Required, name) {
			need = ", always"
		}
		p.put("%s</td><td>%s</td></tr>", need, one.Description)
	}
	p.put("</table>")
}

// kindOf is in words what a value may be.
func kindOf(s *huma.Schema) string {
	if s.Ref != "" {
		return s.Ref[strings.LastIndex(s.Ref, "/")+1:]
	}
	words := s.Type
	if s.Type == huma.TypeArray && s.Items != nil {
		words = "list of " + kindOf(s.Items)
	}
	if s.Format != "" {
		words += " (" + s.Format + ")"
	}
	if s.Nullable {
		words += " or null"
	}
	if s.Minimum != nil {
		words += fmt.Sprintf(", from %v", *s.Minimum)
	}
	if s.Maximum != nil {
		words += fmt.Sprintf(", up to %.0f", *s.Maximum)
	}
	if s.Default != nil {
		words += fmt.Sprintf(", else %v", s.Default)
	}
	if len(s.Enum) > 0 {
		words += fmt.Sprintf(": one of %v", s.Enum)
	}
	return words
}

func paths(d *huma.OpenAPI) []string { return sortedNames(d.Paths) }

func sortedNames[T any](m map[string]T) []string {
	list := make([]string, 0, len(m))
	for name := range m {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func operationsOf(p *huma.PathItem) (list []*huma.Operation) {
	for _, o := range []*huma.Operation{p.Get, p.Post, p.Put, p.Delete} {
		if o != nil {
			list = append(list, o)
		}
	}
	return list
}
