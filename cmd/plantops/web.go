package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/people"
	"github.com/plantops/plantops/web"
	"github.com/plantops/plantops/web/api"
	"github.com/plantops/plantops/web/gate"
	"github.com/plantops/plantops/web/qr"
)

// page is the web page of a running server.
type page struct {
	*web.Server
	gate *gate.Gate
	http config.HTTP
}

// listenWeb binds the addresses of the web page; nil where there is none. A port that is taken ends the start where a person chose it. Where
// nobody did, somebody else may have had it before there was a page: then what devices send is stored all the same.
func listenWeb(w wiring) (*page, error) {
	cfg := w.loaded.Config
	h := cfg.HTTP
	if h.ListenAddress() == "" {
		return nil, nil
	}
	g := gate.New(gate.Options{
		People:      w.store.People(),
		Accounts:    webAccounts{w.store},
		Hosts:       slices.Concat(h.AllowedHosts, cfg.Certs.ExtraNames),
		Proxies:     h.Proxies(),
		ProxiesOnly: h.ProxiesOnly(),
		BasePath:    h.BasePath,
		Log:         w.log,
	})
	o := web.Options{Address: h.ListenAddress(), BasePath: h.BasePath, Gate: g, Proxies: h.Proxies(),
		RegistrationAddress: h.RegistersAt(), Log: w.log}
	if w.authority != nil {
		o.CA = w.authority.RootPEM
		if h.Encrypted() {
			o.TLS = w.authority.WebTLS()
		}
	}
	server, err := web.New(o)
	if errors.Is(err, syscall.EADDRINUSE) && !w.loaded.IsSet("http.address") && h.RegistersAt() == "" {
		w.log.Warn("the web page is not served: another program has its port, and http.address is not set", "address", h.Address,
			"remedy", "set http.address to another port, or to off")
		return nil, nil
	}
	if err != nil {
		return nil, control.ListenHints(err, listenSettings(cfg))
	}
	return &page{server, g, h}, nil
}

// webAccounts shows the accounts of the database to the gate.
type webAccounts struct{ store *store.Store }

func (a webAccounts) Authenticate(name, password string, gone <-chan struct{}) (gate.Account, bool) {
	account, right := a.store.Authenticate(name, []byte(password), store.Wait{Gone: gone})
	return webAccount(account), right
}

func (a webAccounts) Account(name string) (gate.Account, bool) {
	account, known := a.store.Account(name)
	return webAccount(account), known
}

func webAccount(a store.Account) gate.Account {
	if a.Role == store.RoleDevice {
		return gate.Account{Name: a.Name}
	}
	return gate.Account{Name: a.Name, Role: a.WebRole}
}

// mountAPI puts the API below the page.
func (p *page) mountAPI(s *service, db *store.Store) {
	who := func(ctx context.Context) (string, people.Role, bool) {
		asks, known := gate.Of(ctx)
		return asks.Name, asks.Role, known
	}
	p.Mount(web.Mount{Prefix: api.Prefix, Handler: api.New(api.Options{Store: db, Server: s.server, Who: who, Pairing: p.gate.Pairing.IsOpen,
		Version: s.app.build.Version, Now: s.app.now, Log: s.log})})
}

// Address implements control.Web.
func (p *page) Address() string { return p.Addr().String() }

// Pair implements control.Web.
func (p *page) Pair(d time.Duration) (control.Pairing, error) {
	until, err := p.gate.Pairing.Open(d)
	if err != nil {
		return control.Pairing{}, err
	}
	return control.Pairing{Until: control.Moment(until.UnixMilli()), Registration: p.http.RegistersAt()}, nil
}

// Link implements control.Web.
func (p *page) Link(account string) (control.WebLink, error) {
	path, until, err := p.gate.Link(account)
	if err != nil {
		return control.WebLink{}, err
	}
	return control.WebLink{Address: p.Address(), TLS: p.http.Encrypted(), Proxied: p.http.ProxiesOnly(), Path: path, Base: p.http.BasePath,
		Until: control.Moment(until.UnixMilli())}, nil
}

// expireEvery is how often sessions whose time is over are deleted. They are good for nothing before.
const expireEvery = time.Hour

// expireSessions is a part that deletes what nobody is logged in with any more.
func expireSessions(db *store.Store, log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(expireEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			if _, err := db.People().Expire(ctx); err != nil && ctx.Err() == nil {
				log.Warn("expired sessions of the web page stay in the database", "err", err)
			}
		}
	}
}

func newPair(a *app) *cobra.Command {
	var asJSON bool
	var open time.Duration
	cmd := &cobra.Command{
		Use:   "pair",
		Short: "Let devices register by themselves for a few minutes",
		Long: `Open the pairing window of the running server: for its time, devices that ask the web page's API for credentials get some
(POST /api/devices/register), without a token. One that has registered before gets another password. Old firmware, which asks over plain
HTTP, needs http.registration_address.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if open < 10*time.Second || open > time.Hour {
				return usageError(cmd, fmt.Errorf("--for %s: use a time from 10s to 1h", open))
			}
			return a.askServer(cmd.Context(), func(_ config.Config, server *control.Client) error {
				window, err := server.Pair(cmd.Context(), open)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, window)
				}
				if window.Registration == "" {
					a.warn("old firmware, which registers over plain HTTP, cannot: http.registration_address is not set")
				}
				_, err = fmt.Fprintf(a.stdout, "Devices may register for %s, until %s.\n", open, local(window.Until))
				return err
			})
		},
	}
	cmd.Flags().DurationVar(&open, "for", 10*time.Minute, "how long, from 10s to 1h")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// askServer loads the configuration and calls do with the running server; without one the error is ErrUnreachable.
func (a *app) askServer(ctx context.Context, do func(config.Config, *control.Client) error) error {
	loaded, err := a.load()
	if err != nil {
		return err
	}
	server, err := runningServer(ctx, loaded.Config)
	if err != nil {
		return err
	}
	return do(loaded.Config, server)
}

func newOpen(a *app) *cobra.Command {
	var asJSON, lan bool
	var user string
	cmd := &cobra.Command{
		Use:   "open",
		Short: "Print the address of the web page, with a link that logs in once",
		Long: `Print a link to the web page that logs in once, within five minutes: the account of --user or, without it, an administrator until the
browser logs out, for twelve hours or until the server starts again. --lan prints one for other machines, as a QR code too, and how a
phone learns to trust the certificate.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.askServer(cmd.Context(), func(cfg config.Config, server *control.Client) error {
				link, err := server.OpenWeb(cmd.Context(), user)
				if err != nil {
					return err
				}
				origin, err := originOf(cfg, link, lan)
				if err != nil {
					return err
				}
				switch {
				case asJSON:
					return printJSON(a.stdout, openedPage{origin + link.Path, link.Until})
				case lan:
					return printForPhone(a, origin, link)
				}
				a.warn("it logs in once, until %s", local(link.Until))
				_, err = fmt.Fprintln(a.stdout, origin+link.Path)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "`NAME` of the account that is logged in")
	cmd.Flags().BoolVar(&lan, "lan", false, "for a phone or another machine in the network, with a QR code")
	_ = cmd.RegisterFlagCompletionFunc("user", completeUsers(a))
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// openedPage is what open prints for programs.
type openedPage struct {
	URL   string         `json:"url"`
	Until control.Moment `json:"until"`
}

// originOf is how a browser calls the page: scheme, host and port.
func originOf(cfg config.Config, link control.WebLink, lan bool) (string, error) {
	host, port, err := net.SplitHostPort(link.Address)
	if err != nil {
		return "", err
	}
	ip := net.ParseIP(host)
	here := ip != nil && ip.IsLoopback()
	every := ip == nil || ip.IsUnspecified()
	u := url.URL{Scheme: "http"}
	if link.TLS {
		u.Scheme = "https"
	}
	switch {
	case lan && len(cfg.HTTP.TrustedProxies) > 0:
		if len(cfg.HTTP.AllowedHosts) == 0 {
			return "", control.WithHint(errors.New("the page is behind a proxy, whose name is not known"), "put it into http.allowed_hosts")
		}
		u.Scheme, u.Host = "https", cfg.HTTP.AllowedHosts[0]
		return u.String(), nil
	case lan && here:
		return "", control.WithHint(fmt.Errorf("the page is served at %s, which other machines cannot reach", link.Address),
			`set http.address to ":8080" and start the server again: other machines then reach it over TLS, with the certificate that devices know`)
	case lan:
		host, _ = reachableHost(host, cfg.Certs.ExtraNames)
	case here && link.TLS, every, here:
		host = "localhost"
	}
	u.Host = net.JoinHostPort(host, port)
	return u.String(), nil
}

// printForPhone says how another machine gets to the page.
func printForPhone(a *app, origin string, link control.WebLink) error {
	code, err := qr.Terminal(origin + link.Path)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n\nIt logs in once, until %s. The phone must be in the same network.\n", code, origin+link.Path, local(link.Until))
	if link.TLS {
		fmt.Fprintf(&b, `
The phone does not know this server's certificate and says so. To let it, once:
  1. Open %s/ca.crt on the phone, past the warning; it downloads the certificate of the authority.
  2. Android: Settings, Security, Encryption & credentials, Install a certificate, CA certificate.
     iPhone: Settings, Profile downloaded, Install; then General, About, Certificate Trust Settings, switch it on.
`, origin+link.Base)
	}
	_, err = fmt.Fprint(a.stdout, b.String())
	return err
}

// healthPatience is how long a server may take to say how it is.
const healthPatience = 5 * time.Second

func newHealthcheck(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "healthcheck",
		Short: "Exit with 0 when the running server stores what comes; for containers and scripts",
		Long: `Ask the running server how it is, and exit with 0 when it is healthy or degraded: readings are stored. Exit with 1 when they are not,
and with 4 when no server answers.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), healthPatience)
			defer cancel()
			return a.askServer(ctx, func(_ config.Config, server *control.Client) error {
				status, err := server.Status(ctx)
				if err != nil {
					return err
				}
				if status.Health == control.Unhealthy {
					return fmt.Errorf("unhealthy: %s", strings.Join(status.Problems, "; "))
				}
				_, err = fmt.Fprintln(a.stdout, status.Health)
				return err
			})
		},
	}
}
