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
	return s.recovering(gate.Headers(g.Callers(g.Hosts(gate.Paths(s.based(g.Origins(g.Identify(next))))))))
}

// paths is everything that is answered.
func (s *Server) paths() http.Handler {
	mux := http.NewServeMux()
	own := func(pattern string, h http.Handler) {
		mux.Handle(pattern, gate.Bodies(maxBodyBytes, s.options.bodyTimeout, h))
	}
	g := s.options.Gate
	own("GET /login", http.HandlerFunc(s.loginPage))
	own("POST /login", g.Login(s.refusedPage))
	own("POST /logout", g.Logout())
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
		defer func() {
			switch fault := recover(); fault {
			case nil:
			case http.ErrAbortHandler:
				panic(fault)
			default:
				s.options.Log.Error("a request failed by a fault of this program", "method", r.Method, "path", r.URL.Path, "fault", fault,
					"stack", string(debug.Stack()))
				gate.Problem(w, http.StatusInternalServerError, "a fault of this program; its log says which")
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// authority hands out the certificates that devices, phones and browsers are to trust. They are no secret.
func (s *Server) authority(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-x509-ca-cert")
	w.Header().Set("Content-Disposition", `attachment; filename="plantops-ca.crt"`)
	_, _ = w.Write(s.options.CA()) // nobody is left to tell
}
