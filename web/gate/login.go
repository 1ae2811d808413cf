package gate

import (
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/plantops/plantops/store/people"
)

// A login that is refused.
var (
	errWrong  = errors.New("name or password is wrong")
	errNoRole = errors.New("this account may not log in here: it is a device, or was made without a role (plantops user add NAME --role ROLE)")
	errOften  = errors.New("too many attempts")
)

// Credentials are what somebody logs in with.
type Credentials struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

// maxName is longer than any account's: such a name costs nothing.
const maxName = 64

// Login takes name and password, as a form or JSON. A form is answered with a page (page gets what is to be said, "" after success), JSON
// with JSON.
func (g *Gate) Login(page func(w http.ResponseWriter, status int, words string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, isForm, err := readCredentials(r)
		if err != nil {
			Problem(w, http.StatusBadRequest, "send name and password, as a form or as JSON")
			return
		}
		account, wait, err := g.login(r, given)
		if err == nil {
			err = g.begin(w, r, account)
		}
		status := loginStatus(err)
		if wait > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		}
		switch {
		case status == http.StatusInternalServerError:
			g.options.Log.Error("nobody can log in", "err", err)
			Problem(w, http.StatusServiceUnavailable, "the database does not answer: try again in a moment")
		case err != nil && isForm:
			page(w, status, err.Error())
		case err != nil:
			Problem(w, status, err.Error())
		case isForm:
			http.Redirect(w, r, g.options.BasePath+"/", http.StatusSeeOther)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]string{"name": account.Name, "role": string(account.Role)}) // nobody is left to tell
		}
	})
}

func loginStatus(err error) int {
	switch {
	case err == nil:
		return http.StatusOK
	case errors.Is(err, errWrong):
		return http.StatusUnauthorized
	case errors.Is(err, errNoRole):
		return http.StatusForbidden
	case errors.Is(err, errOften):
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}

func readCredentials(r *http.Request) (given Credentials, isForm bool, err error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind == "application/json" {
		return given, false, json.NewDecoder(r.Body).Decode(&given)
	}
	if err := r.ParseForm(); err != nil {
		return given, true, err
	}
	return Credentials{r.PostForm.Get("name"), r.PostForm.Get("password")}, true, nil
}

// login judges credentials. wait is how long the client is to wait after errOften.
func (g *Gate) login(r *http.Request, given Credentials) (account Account, wait time.Duration, err error) {
	from := Client(r.Context())
	if given.Name == "" || len(given.Name) > maxName || given.Password == "" {
		return account, 0, errWrong
	}
	if wait := g.guesses.take(time.Now(), from, given.Name); wait > 0 {
		return account, wait, errOften
	}
	account, right := g.options.Accounts.Authenticate(given.Name, given.Password, r.Context().Done())
	switch {
	case !right:
		err = errWrong
	case account.Role == "":
		err = errNoRole
	default:
		g.guesses.right(from, account.Name)
		return account, 0, nil
	}
	g.options.Log.Warn("refused login on the web page", "account", given.Name, "remote", from.String(), "reason", err.Error())
	return account, 0, err
}

// begin starts a session: always a new one. What the browser had before ends, whoever gave it to it.
func (g *Gate) begin(w http.ResponseWriter, r *http.Request, account Account) error {
	cookie, _, err := g.options.People.MakeSession(r.Context(), account.Name, sessionLifetime)
	if err != nil {
		return err
	}
	if err := g.end(r); err != nil {
		return err
	}
	g.setCookie(w, r, cookie, sessionLifetime)
	g.options.Log.Info("somebody logged in on the web page", "account", account.Name, "remote", Client(r.Context()).String())
	return nil
}

// end ends the session that a request came with, if any.
func (g *Gate) end(r *http.Request) error {
	cookie := g.cookie(r)
	if cookie == "" {
		return nil
	}
	g.links.logOut(cookie)
	if _, err := g.options.People.Session(r.Context(), cookie); errors.Is(err, people.ErrNotFound) {
		return nil // a stranger's costs no commit
	}
	return g.options.People.EndSession(r.Context(), cookie)
}

// Logout ends the session of who asks.
func (g *Gate) Logout() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.end(r); err != nil {
			g.options.Log.Error("nobody can log out", "err", err)
			Problem(w, http.StatusServiceUnavailable, "the database does not answer: try again in a moment")
			return
		}
		g.setCookie(w, r, "", 0)
		http.Redirect(w, r, g.options.BasePath+"/", http.StatusSeeOther)
	})
}
