package gate

import (
	"encoding/json"
	"net/http"
)

// problem is RFC 9457. Old clients read detail, and only that.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

// Problem answers with an error: detail says to a person what is wrong, and what to do.
func Problem(w http.ResponseWriter, status int, detail string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The other side is gone if this fails: nobody is left to tell.
	_ = json.NewEncoder(w).Encode(problem{"about:blank", http.StatusText(status), status, detail})
}

// Unauthorized is Problem for somebody whom nobody knows.
func Unauthorized(w http.ResponseWriter, detail string) {
	w.Header().Set("WWW-Authenticate", "Bearer")
	Problem(w, http.StatusUnauthorized, detail)
}
