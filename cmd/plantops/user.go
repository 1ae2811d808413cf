package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/people"
)

func newUser(a *app) *cobra.Command {
	return group(&cobra.Command{Use: "user", Short: "Add, list and remove people and other programs"},
		newUserAdd(a), newUserList(a), newUserPasswd(a), newUserRemove(a))
}

// rules are what an account may do.
type rules struct {
	Publish   []string `json:"publish"`
	Subscribe []string `json:"subscribe"`
	Admin     bool     `json:"admin"`
}

// presets are the rules of each role.
func presets() map[string]rules {
	return map[string]rules{
		"viewer":   {Subscribe: []string{"devices/#"}},
		"operator": {Subscribe: []string{"devices/#"}, Publish: []string{"devices/+/commands/#"}},
		"admin":    {Subscribe: []string{"#"}, Publish: []string{"#"}, Admin: true},
	}
}

// with adds the rules of a role; no role adds none.
func (r rules) with(role string) (rules, error) {
	preset, known := presets()[role]
	if role != "" && !known {
		return r, fmt.Errorf("there is no role %q, only %s", role, strings.Join(slices.Sorted(maps.Keys(presets())), ", "))
	}
	r.Publish = append([]string{}, slices.Concat(r.Publish, preset.Publish)...) // never nil: null in JSON
	r.Subscribe = append([]string{}, slices.Concat(r.Subscribe, preset.Subscribe)...)
	r.Admin = r.Admin || preset.Admin
	return r, nil
}

// check finds what is wrong before anybody has typed a password.
func (r rules) check(name string) error {
	errs := []error{store.CheckID(name)}
	for _, filter := range slices.Concat(r.Publish, r.Subscribe) {
		errs = append(errs, store.CheckFilter(filter))
	}
	if len(r.Publish)+len(r.Subscribe) == 0 {
		errs = append(errs, control.KindOf(errUsage, control.WithHint(errors.New("without rules the account may do nothing"),
			"give --role viewer, operator or admin, or --publish FILTER and --subscribe FILTER")))
	}
	return errors.Join(errs...)
}

func newUserAdd(a *app) *cobra.Command {
	var asJSON bool
	var role string
	var own rules
	var source passwordSource
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Let a person or another program in, with rules of its own",
		Long: `Let a person or another program in, with rules of its own.

Roles are presets, and rules can be added to them:
  viewer    subscribe to devices/#
  operator  the same, and publish to devices/+/commands/#
  admin     everything, and read $SYS

The role is also what the account may do on the web page; without one it cannot log in there.

In a FILTER, + and # are MQTT's wildcards, %u is the name of the account and %c the client id. Clients
choose their ids: %c keeps clients of one account apart, it does not protect them from each other.

The password is asked for on the terminal, or comes from a file or standard input, or is generated.`,
		Example: `  plantops user add anna --role viewer
  plantops user add home-assistant --role operator --subscribe 'homeassistant/#' --publish 'homeassistant/#' --generate`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			granted, err := own.with(role)
			if err != nil {
				return usageError(cmd, err)
			}
			if err := granted.check(args[0]); err != nil {
				return err
			}
			password, err := a.password(cmd, source, args[0])
			if err != nil {
				return err
			}
			return a.operateExisting(cmd.Context(), func(cfg config.Config, o control.Operator) error {
				err := o.AddUser(cmd.Context(), store.NewUser{Name: args[0], Publish: granted.Publish,
					Subscribe: granted.Subscribe, Admin: granted.Admin, WebRole: store.WebRole(role), Password: password})
				if err != nil {
					return a.userHint(cmd.Context(), cfg, err, args[0])
				}
				reach, err := o.Contact(cmd.Context())
				if err != nil {
					return err
				}
				given := userCredentials(args[0], source.unseen(password), cfg, reach)
				given.rules = &granted
				if asJSON {
					return printJSON(a.stdout, given)
				}
				return printCredentials(a, given, "User "+args[0]+" can connect.")
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "viewer, operator or admin")
	cmd.Flags().StringArrayVar(&own.Publish, "publish", nil, "topic `FILTER` that it may publish to; can be repeated")
	cmd.Flags().StringArrayVar(&own.Subscribe, "subscribe", nil, "topic `FILTER` that it may subscribe to; can be repeated")
	addPasswordFlags(cmd, &source)
	addJSONFlag(cmd, &asJSON)
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(slices.Sorted(maps.Keys(presets())), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func newUserPasswd(a *app) *cobra.Command {
	var asJSON bool
	var source passwordSource
	cmd := &cobra.Command{
		Use:               "passwd NAME",
		Short:             "Give a user another password; the old one and its connections end at once",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeUsers(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := a.password(cmd, source, args[0])
			if err != nil {
				return err
			}
			return a.operateExisting(cmd.Context(), func(cfg config.Config, o control.Operator) error {
				if err := o.SetPassword(cmd.Context(), args[0], password); err != nil {
					return a.userHint(cmd.Context(), cfg, err, args[0])
				}
				reach, err := o.Contact(cmd.Context())
				if err != nil {
					return err
				}
				given := userCredentials(args[0], source.unseen(password), cfg, reach)
				if asJSON {
					return printJSON(a.stdout, given)
				}
				return printCredentials(a, given, "User "+args[0]+" has another password; its connections have ended.")
			})
		},
	}
	addPasswordFlags(cmd, &source)
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func newUserRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "remove NAME",
		Short:             "Take a user's access away and end its connections",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeUsers(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.operateExisting(cmd.Context(), func(cfg config.Config, o control.Operator) error {
				if err := o.RemoveUser(cmd.Context(), args[0]); err != nil {
					return a.userHint(cmd.Context(), cfg, err, args[0])
				}
				_, err := fmt.Fprintf(a.stdout, "User %s can no longer connect.\n", args[0])
				return err
			})
		},
	}
}

// userHint adds to err what a person can do about it. A name that is not known is compared with those that are.
func (a *app) userHint(ctx context.Context, cfg config.Config, err error, name string) error {
	switch {
	case errors.Is(err, store.ErrExists):
		return control.WithHint(err, fmt.Sprintf("a new password for it: plantops user passwd %s; other rules: remove it first", name))
	case errors.Is(err, store.ErrNotFound):
		var names []string
		if db, openErr := a.openReadOnly(ctx, cfg); openErr == nil {
			defer db.Close()
			users, _ := db.Users(ctx)
			for _, u := range users {
				names = append(names, u.Name)
			}
		}
		return didYouMean(control.WithHint(err, "users: plantops user list"), "", name, names)
	}
	return err
}

func filters(list []string) string { return orDash(strings.Join(list, " ")) }

// userStatus is a user as commands print it.
type userStatus struct {
	Name string `json:"name"`
	rules
	Role     store.WebRole            `json:"role"` // as it was added with; empty: none
	Created  control.Moment           `json:"created"`
	Refusals []control.AccountRefusal `json:"refusals"` // by the running server since it started
}

func newUserList(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List users with what they may do",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.read(cmd.Context(), func(cfg config.Config, db *store.Store) error {
				known, err := db.Users(cmd.Context())
				if err != nil {
					return err
				}
				all, ofUsers := inMemory(cmd.Context(), a, cfg, (*control.Client).Refusals), control.Refusals{}
				users := make([]userStatus, len(known))
				rows := [][]string{{"USER", "ROLE", "PUBLISH", "SUBSCRIBE", "ADMIN", "CREATED"}}
				for i, u := range known {
					users[i] = userStatus{u.Name, rules{u.Publish, u.Subscribe, u.Admin}, u.WebRole, control.Moment(u.Created), []control.AccountRefusal{}}
					if mine := all[u.Name]; mine != nil {
						users[i].Refusals, ofUsers[u.Name] = mine, mine
					}
					admin := "-"
					if u.Admin {
						admin = "yes"
					}
					rows = append(rows, []string{u.Name, orDash(string(u.WebRole)), filters(u.Publish), filters(u.Subscribe), admin, local(control.Moment(u.Created))})
				}
				if asJSON {
					return printJSON(a.stdout, users)
				}
				if len(users) == 0 {
					a.warn("no user yet; make one with: plantops user add NAME --role viewer")
				}
				if err := table(a.stdout, rows); err != nil {
					return err
				}
				return printRefusals(a, ofUsers, a.now(), true)
			})
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// completeUsers completes names of users on the command line.
func completeUsers(a *app) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
		var names []string
		err := a.read(cmd.Context(), func(_ config.Config, db *store.Store) error {
			users, err := db.Users(cmd.Context())
			for _, u := range users {
				if strings.HasPrefix(u.Name, prefix) && len(given) == 0 {
					names = append(names, u.Name)
				}
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func newToken(a *app) *cobra.Command {
	return group(&cobra.Command{Use: "token", Short: "Add, list and remove bearer tokens for the web page's API"},
		newTokenAdd(a), newTokenList(a), newTokenRemove(a))
}

// addedToken is what token add prints for programs.
type addedToken struct {
	Name  string        `json:"name"`
	Role  store.WebRole `json:"role"`
	Token string        `json:"token"`
}

func newTokenAdd(a *app) *cobra.Command {
	var asJSON bool
	var role string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a token with which a program may use the API",
		Long: `Make a token with which a program may use the API: it sends "Authorization: Bearer TOKEN". The token is shown only once.

  viewer    may read
  operator  may also change plants, devices and notes
  admin     may do everything`,
		Example: `  plantops token add grafana --role viewer`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, known := presets()[role]; !known {
				return usageError(cmd, fmt.Errorf("--role %q: give viewer, operator or admin", role))
			}
			return a.operateExisting(cmd.Context(), func(_ config.Config, o control.Operator) error {
				secret, err := o.AddToken(cmd.Context(), args[0], store.WebRole(role))
				if err != nil {
					return tokenHint(err, args[0])
				}
				if asJSON {
					return printJSON(a.stdout, addedToken{args[0], store.WebRole(role), secret})
				}
				a.warn("token %s has the role %s; it is shown only this once", args[0], role)
				_, err = fmt.Fprintln(a.stdout, secret)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "viewer, operator or admin")
	addJSONFlag(cmd, &asJSON)
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(slices.Sorted(maps.Keys(presets())), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// tokenHint adds to err what a person can do about it.
func tokenHint(err error, name string) error {
	switch {
	case errors.Is(err, people.ErrInvalidName), errors.Is(err, people.ErrInvalidRole):
		return control.KindOf(errUsage, err)
	case errors.Is(err, people.ErrExists):
		return control.WithHint(err, "another one in its place: plantops token remove "+name+" first; or choose another name")
	case errors.Is(err, people.ErrNotFound):
		return control.WithHint(err, "tokens: plantops token list")
	}
	return err
}

func newTokenRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "remove NAME",
		Short:             "End a token at once",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeTokens(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.operateExisting(cmd.Context(), func(_ config.Config, o control.Operator) error {
				if err := o.RemoveToken(cmd.Context(), args[0]); err != nil {
					return tokenHint(err, args[0])
				}
				_, err := fmt.Fprintf(a.stdout, "Token %s is good for nothing any more.\n", args[0])
				return err
			})
		},
	}
}

// tokenStatus is a token as commands print it.
type tokenStatus struct {
	Name    string         `json:"name"`
	Role    store.WebRole  `json:"role"`
	Created control.Moment `json:"created"`
	Used    control.Moment `json:"used"` // last, to the minute; null: never
}

func newTokenList(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List tokens with their role and when they were used last",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.read(cmd.Context(), func(_ config.Config, db *store.Store) error {
				known, err := db.People().Tokens(cmd.Context())
				if err != nil {
					return err
				}
				tokens := make([]tokenStatus, len(known))
				rows := [][]string{{"TOKEN", "ROLE", "CREATED", "LAST USED"}}
				for i, t := range known {
					tokens[i] = tokenStatus{t.Name, t.Role, control.Moment(t.Created), control.Moment(t.Used)}
					rows = append(rows, []string{t.Name, string(t.Role), local(tokens[i].Created), local(tokens[i].Used)})
				}
				if asJSON {
					return printJSON(a.stdout, tokens)
				}
				if len(tokens) == 0 {
					a.warn("no token yet; make one with: plantops token add NAME --role viewer")
				}
				return table(a.stdout, rows)
			})
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// completeTokens completes names of tokens on the command line.
func completeTokens(a *app) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
		var names []string
		err := a.read(cmd.Context(), func(_ config.Config, db *store.Store) error {
			tokens, err := db.People().Tokens(cmd.Context())
			for _, t := range tokens {
				if strings.HasPrefix(t.Name, prefix) && len(given) == 0 {
					names = append(names, t.Name)
				}
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
