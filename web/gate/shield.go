package gate

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// policy lets a page load what comes from here, and nothing else: no script in a page, no frame around it, no form to elsewhere.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; " +
	"manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Headers tells browsers what they must not do with any answer. Handlers may allow answers to be kept (Cache-Control).
func Headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin") // with less, the browser would not say where a form comes from
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// Origins refuses what changes something and comes from a page of somebody else (CSRF). Programs, which send no Origin, pass: they have no
// cookies that somebody else could use.
func (g *Gate) Origins(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.origins.Check(r); err != nil {
			Problem(w, http.StatusForbidden, "this request comes from a page of another server")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Paths refuses paths that mean another than they say: with . or .. between slashes, a backslash, a zero byte or an empty part, also
// where they are written as %2e%2e.
func Paths(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !plainPath(r.URL.Path) {
			Problem(w, http.StatusBadRequest, "this path is not plain: write it without . and .., \\ and //")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func plainPath(path string) bool {
	parts := strings.Split(path, "/")
	if parts[0] != "" || path == "" || strings.ContainsAny(path, "\\\x00") {
		return false
	}
	return !slices.ContainsFunc(parts, func(part string) bool { return part == "." || part == ".." }) && !strings.Contains(path, "//")
}

// Bodies bounds the body of each request: how large it may be, and how long it may take to come.
func Bodies(most int64, within time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > most {
			w.Header().Set("Connection", "close")
			Problem(w, http.StatusRequestEntityTooLarge, "the body of the request is larger than this server takes")
			return
		}
		if r.ContentLength != 0 {
			// A connection without deadlines has another way to end; a test has none.
			control := http.NewResponseController(w)
			_ = control.SetReadDeadline(time.Now().Add(within))
			r.Body = &timedBody{ReadCloser: http.MaxBytesReader(w, r.Body, most), control: control}
		}
		next.ServeHTTP(w, r)
	})
}

// timedBody lifts the deadline when the body is there: what the connection says then is no part of it.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
	over    atomic.Bool
}

func (b *timedBody) Read(p []byte) (n int, err error) {
	n, err = b.ReadCloser.Read(p)
	if err == io.EOF && b.over.CompareAndSwap(false, true) {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
