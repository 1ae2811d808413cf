package web

import (
	"html"
	"io"
	"net/http"
	"strings"

	"github.com/plantops/plantops/web/gate"
)

const pageHead = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>PlantOps</title>
<main>
<h1>PlantOps</h1>
`

const loginForm = `<form method="post" action="BASE/login">
<p><label>Name <input name="name" autocomplete="username" required autofocus></label>
<p><label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<p><button>Log in</button>
</form>
<p>Without an account: <code>plantops open</code> on the machine prints a link that logs you in.
`

const front = `<p>You are logged in as NAME (ROLE).
<p>There is no dashboard here yet. What there is: the API at <a href="BASE/api/docs">BASE/api</a>, for programs with a token
(<code>plantops token add NAME --role viewer</code>), and on the machine <code>plantops status</code> and <code>plantops readings</code>.
<form method="post" action="BASE/logout"><button>Log out</button></form>
`

// write sends a page. Words that do not stand here come in escaped.
func (s *Server) write(w http.ResponseWriter, status int, text string, words ...string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	words = append(words, "BASE", html.EscapeString(s.options.BasePath))
	_, _ = io.WriteString(w, pageHead+strings.NewReplacer(words...).Replace(text)+"</main>\n") // nobody is left to tell
}

// frontPage says what there is to who is logged in, and lets others do that.
func (s *Server) frontPage(w http.ResponseWriter, r *http.Request) {
	p, known := gate.Of(r.Context())
	if !known {
		s.write(w, http.StatusOK, loginForm)
		return
	}
	s.write(w, http.StatusOK, front, "You are logged in as NAME (ROLE)",
		"You are logged in as "+html.EscapeString(p.Name)+" ("+html.EscapeString(string(p.Role))+")")
}

func (s *Server) loginPage(w http.ResponseWriter, _ *http.Request) {
	s.write(w, http.StatusOK, loginForm)
}

// refusedPage says why somebody is not logged in, and lets him try again.
func (s *Server) refusedPage(w http.ResponseWriter, status int, words string) {
	s.write(w, status, "<p role=\"alert\">"+html.EscapeString(words)+"\n"+loginForm)
}
