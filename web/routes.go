package web

import (
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/plantops/plantops/web/gate"
)

// guarded puts before everything what judges requests: by where they come from and what they call, before it is asked who sends them.
func (s *Server) guarded(next http.Handler) http.Handler {
	g := s.options.Gate
	// The outermost bound is for what is refused before it finds one of its own: its body is read to its end too.
	return s.recovering(gate.Headers(gate.Bodies(s.largestBody(), s.options.bodyTimeout, g.Callers(g.Hosts(gate.Paths(s.based(g.Origins(g.Identify(next)))))))))
}

func (s *Server) largestBody() int64 {
	largest := int64(maxBodyBytes)
	for _, m := range s.options.Mounts {
		largest = max(largest, m.MaxBodyBytes)
	}
	return largest
}

// paths is everything that is answered.
func (s *Server) paths() http.Handler {
	mux := http.NewServeMux()
	own := func(pattern string, h http.Handler) {
		mux.Handle(pattern, gate.Bodies(maxBodyBytes, s.options.bodyTimeout, h))
	}
	g := s.options.Gate
	own("GET /login", http.HandlerFunc(s.loginPage))
	// Nobody is known yet who sends them.
	mux.Handle("POST /login", gate.Bodies(maxLoginBytes, s.options.bodyTimeout, g.Login(s.refusedPage)))
	mux.Handle("POST /logout", gate.Bodies(maxLoginBytes, s.options.bodyTimeout, g.Logout()))
	own("GET "+gate.LinkPath, g.Once(s.refusedPage))
	if s.options.CA != nil {
		own("GET /ca.crt", http.HandlerFunc(s.authority))
	}
	rest := false
	for _, m := range s.options.Mounts {
		h := m.Handler
		if m.Role != "" {
			h = gate.Need(m.Role, h)
		}
		most := m.MaxBodyBytes
		if most == 0 {
			most = maxBodyBytes
		}
		h = gate.Bodies(most, s.options.bodyTimeout, h)
		mux.Handle(m.Prefix+"/", h)
		if m.Prefix == "" {
			rest = true
		} else {
			mux.Handle(m.Prefix, h)
		}
	}
	if !rest {
		own("GET /{$}", http.HandlerFunc(s.frontPage))
		own("/", http.HandlerFunc(notFound))
	}
	return mux
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	gate.Problem(w, http.StatusNotFound, "there is nothing at this path")
}

// based takes the base path away, and refuses what is not below it.
func (s *Server) based(next http.Handler) http.Handler {
	base := s.options.BasePath
	if base == "" {
		return next
	}
	below := http.StripPrefix(base, next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == base:
			http.Redirect(w, r, base+"/", http.StatusPermanentRedirect)
		case strings.HasPrefix(r.URL.Path, base+"/"):
			below.ServeHTTP(w, r)
		default:
			notFound(w, r)
		}
	})
}

// recovering ends a request that hits a fault of this program, and nothing else.
func (s *Server) recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &answered{ResponseWriter: w}
		defer func() {
			switch fault := recover(); fault {
			case nil:
			case http.ErrAbortHandler:
				panic(fault)
			default:
				s.options.Log.Error("a request failed by a fault of this program", "method", r.Method, "path", r.URL.Path, "fault", fault,
					"stack", string(debug.Stack()))
				if answer.begun { // nobody is to take a part for the whole
					panic(http.ErrAbortHandler)
				}
				gate.Problem(w, http.StatusInternalServerError, "a fault of this program; its log says which")
			}
		}()
		next.ServeHTTP(answer, r)
	})
}

// answered knows whether an answer has begun.
type answered struct {
	http.ResponseWriter
	begun bool
}

func (a *answered) WriteHeader(status int) {
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

func (a *answered) Write(b []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// authority hands out the certificates that devices, phones and browsers are to trust. They are no secret.
func (s *Server) authority(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-x509-ca-cert")
	w.Header().Set("Content-Disposition", `attachment; filename="plantops-ca.crt"`)
	_, _ = w.Write(s.options.CA()) // nobody is left to tell
}
