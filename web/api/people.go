package api

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/people"
)

// account is a person or a program. What proves it is never answered.
type account struct {
	Name      string         `json:"name"`
	Role      *people.Role   `json:"role" enum:"viewer,operator,admin" doc:"on the page and in the API; null: none"`
	Admin     bool           `json:"mqtt_admin" doc:"may read $SYS"`
	Publish   []string       `json:"publish" doc:"topic filters"`
	Subscribe []string       `json:"subscribe" doc:"topic filters"`
	Created   control.Moment `json:"created_at"`
}

type accountList struct {
	Accounts []account `json:"accounts"`
}

type newAccount struct {
	Name      string   `json:"name" minLength:"1"`
	Password  string   `json:"password" minLength:"1" writeOnly:"true"`
	Role      *string  `json:"role" enum:"viewer,operator,admin" required:"false"`
	Admin     bool     `json:"mqtt_admin,omitempty" required:"false"`
	Publish   []string `json:"publish" required:"false" maxItems:"1000"`
	Subscribe []string `json:"subscribe" required:"false" maxItems:"1000"`
}

type accountChange struct {
	Password *string `json:"password" required:"false" writeOnly:"true"`
	Role     *string `json:"role" required:"false" doc:"viewer, operator, admin; empty: none"`
}

type token struct {
	ID      string         `json:"id" doc:"the secret begins with it"`
	Name    string         `json:"name"`
	Role    people.Role    `json:"role" enum:"viewer,operator,admin"`
	Created control.Moment `json:"created_at"`
	Used    control.Moment `json:"used_at" doc:"to the minute; null: never"`
}

type tokenList struct {
	Tokens []token `json:"tokens"`
}

type newToken struct {
	Name string `json:"name" minLength:"1"`
	Role string `json:"role" enum:"viewer,operator,admin"`
}

type madeToken struct {
	token
	Secret string `json:"secret" doc:"nobody can be told it again"`
}

func peopleOperations() []operation {
	name := []*huma.Param{path("name", "of an account")}
	missing := []int{http.StatusNotFound}
	conflict := []int{http.StatusNotFound, http.StatusConflict}
	return []operation{
		{method: http.MethodGet, path: Prefix + "/accounts", tag: tagPeople, needs: people.Admin, summary: "Accounts of people and programs", answer: accountList{}, do: (*call).accounts},
		{method: http.MethodPost, path: Prefix + "/accounts", tag: tagPeople, needs: people.Admin, summary: "Add an account", body: newAccount{}, answer: account{},
			status: http.StatusCreated, errors: conflict, do: (*call).addAccount},
		{method: http.MethodPut, path: Prefix + "/accounts/{name}", tag: tagPeople, needs: people.Admin, summary: "Change password or role of an account",
			about: "Another password ends its sessions.", params: name, body: accountChange{}, answer: account{}, errors: conflict, do: (*call).changeAccount},
		{method: http.MethodDelete, path: Prefix + "/accounts/{name}", tag: tagPeople, needs: people.Admin, summary: "Remove an account", about: "Its sessions end.",
			params: name, status: http.StatusNoContent, errors: conflict, do: (*call).removeAccount},
		{method: http.MethodGet, path: Prefix + "/tokens", tag: tagPeople, needs: people.Admin, summary: "Bearer tokens, without their secrets", answer: tokenList{}, do: (*call).tokens},
		{method: http.MethodPost, path: Prefix + "/tokens", tag: tagPeople, needs: people.Admin, summary: "Make a bearer token", body: newToken{}, answer: madeToken{},
			status: http.StatusCreated, errors: conflict, do: (*call).addToken},
		{method: http.MethodDelete, path: Prefix + "/tokens/{name}", tag: tagPeople, needs: people.Admin, summary: "End a bearer token at once",
			params: []*huma.Param{path("name", "of a token")}, status: http.StatusNoContent, errors: missing, do: func(c *call) (any, error) {
				return nil, c.Store.People().RemoveToken(c, c.text("name"))
			}},
	}
}

func accountOf(a *store.Account) account {
	out := account{Name: a.Name, Admin: a.Admin, Publish: a.Publish, Subscribe: a.Subscribe, Created: control.Moment(a.Created)}
	if a.WebRole != "" {
		out.Role = &a.WebRole
	}
	return out
}

func (c *call) accounts() (any, error) {
	all, err := c.Store.Users(c)
	out := accountList{[]account{}}
	for i := range all {
		out.Accounts = append(out.Accounts, accountOf(&all[i]))
	}
	return out, err
}

func (c *call) addAccount() (any, error) {
	asked := bodyOf[newAccount](c)
	u := store.NewUser{Name: asked.Name, Password: asked.Password, Admin: asked.Admin, Publish: asked.Publish, Subscribe: asked.Subscribe}
	if asked.Role != nil {
		u.WebRole = people.Role(*asked.Role)
	}
	if err := c.Server.AddUser(c, u); err != nil {
		return nil, err
	}
	return c.accountNow(u.Name)
}

func (c *call) accountNow(name string) (any, error) {
	a, known := c.Store.Account(name)
	if !known || a.Role != store.RoleUser {
		return nil, refuse(http.StatusNotFound, "there is no such account")
	}
	return accountOf(&a), nil
}

// keepsAdmin refuses to take the role from the last admin: nobody could give it back but who sits at the machine.
func (c *call) keepsAdmin(name string) error {
	all, err := c.Store.Users(c)
	if err != nil {
		return err
	}
	is, others := false, 0
	for _, a := range all {
		switch {
		case a.WebRole != people.Admin:
		case a.Name == name:
			is = true
		default:
			others++
		}
	}
	if is && others == 0 {
		return refuse(http.StatusConflict, "it is the only admin: make another one first")
	}
	return nil
}

func (c *call) changeAccount() (any, error) {
	asked, name := bodyOf[accountChange](c), c.text("name")
	if _, err := c.accountNow(name); err != nil {
		return nil, err
	}
	if asked.Role != nil && *asked.Role != "" {
		if err := people.CheckRole(people.Role(*asked.Role)); err != nil {
			return nil, err
		}
	}
	c.admins.Lock()
	defer c.admins.Unlock()
	if asked.Role != nil && people.Role(*asked.Role) != people.Admin {
		if err := c.keepsAdmin(name); err != nil {
			return nil, err
		}
	}
	if asked.Password != nil {
		if err := c.Server.SetPassword(c, name, *asked.Password); err != nil {
			return nil, err
		}
	}
	if asked.Role != nil {
		if err := c.Store.SetWebRole(c, name, people.Role(*asked.Role)); err != nil {
			return nil, err
		}
	}
	return c.accountNow(name)
}

func (c *call) removeAccount() (any, error) {
	c.admins.Lock()
	defer c.admins.Unlock()
	if err := c.keepsAdmin(c.text("name")); err != nil {
		return nil, err
	}
	return nil, c.Server.RemoveUser(c, c.text("name"))
}

func tokenOf(t *people.Token) token {
	return token{t.ID, t.Name, t.Role, control.Moment(t.Created), control.Moment(t.Used)}
}

func (c *call) tokens() (any, error) {
	all, err := c.Store.People().Tokens(c)
	out := tokenList{[]token{}}
	for i := range all {
		out.Tokens = append(out.Tokens, tokenOf(&all[i]))
	}
	return out, err
}

func (c *call) addToken() (any, error) {
	asked := bodyOf[newToken](c)
	secret, t, err := c.Store.People().AddToken(c, asked.Name, people.Role(asked.Role))
	return madeToken{tokenOf(&t), secret}, err
}
