package api

import (
	"net/http"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store/derive"
)

// routes are all operations, and their description.
type routes struct {
	*API
	mux  *http.ServeMux
	huma huma.API
}

// The groups that operations stand in, in the description.
const (
	tagSystem   = "System"
	tagDevices  = "Devices"
	tagPlants   = "Plants"
	tagReadings = "Readings"
	tagPlaces   = "Zones, notes, assignments"
	tagRepair   = "Quarantine and corrections"
	tagPeople   = "Accounts and tokens"
)

func (a *API) build() *routes {
	registry := huma.NewMapRegistry("#/components/schemas/", schemaName)
	registry.RegisterTypeAlias(reflect.TypeFor[control.Moment](), reflect.TypeFor[*time.Time]())
	registry.RegisterTypeAlias(reflect.TypeFor[derive.Points](), reflect.TypeFor[[][]float64]())
	config := huma.Config{OpenAPI: &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "PlantOps", Version: a.Version,
			Description: "Times are RFC 3339 in UTC. Errors are application/problem+json, whose detail is text for people. Fields that are not known are ignored."},
		Components: &huma.Components{Schemas: registry, SecuritySchemes: map[string]*huma.SecurityScheme{
			"token":   {Type: "http", Scheme: "bearer", Description: "plantops token add NAME --role ROLE"},
			"session": {Type: "apiKey", In: "cookie", Name: "plantops", Description: "of who is logged in to the page; over HTTPS its name begins with __Host- or __Secure-"},
		}},
	}}
	config.AllowAdditionalPropertiesByDefault = true
	b := &routes{API: a, mux: http.NewServeMux()}
	b.huma = humago.New(b.mux, config)
	for _, list := range [][]operation{systemOperations(), deviceOperations(), plantOperations(), readingOperations(), gardenOperations(),
		noteOperations(), quarantineOperations(), correctionOperations(), peopleOperations(), b.documents()} {
		for _, op := range list {
			b.add(op)
		}
	}
	debug.FreeOSMemory() // half of what that took is not needed any more, and a box that nobody asks more does not collect
	return b
}

// schemaName is the name of a type in the description: types of other packages bear their package's.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if of := t.PkgPath()[strings.LastIndex(t.PkgPath(), "/")+1:]; of != "" && of != "api" && of != "v2" {
		return strings.ToUpper(of[:1]) + of[1:] + name
	}
	return name
}
