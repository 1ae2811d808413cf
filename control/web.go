package control

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/plantops/plantops/store"
)

// Web is the web page of a running server.
type Web interface {
	// Address is what it listens on, host:port.
	Address() string
	// Pair lets devices register without a token for a time.
	Pair(d time.Duration) (Pairing, error)
	// Link makes a link that logs in once: the account or, for "", an administrator.
	Link(account string) (WebLink, error)
}

// Pairing is an open pairing window.
type Pairing struct {
	Until Moment `json:"until"`
	// Registration is where old firmware registers over plain HTTP, host:port; empty: nowhere.
	Registration string `json:"registration,omitempty"`
}

// WebLink is a one-time link to the web page, in parts: which host leads to it from where, the reader knows.
type WebLink struct {
	Address string `json:"address"` // that is listened on, host:port
	TLS     bool   `json:"tls"`
	Proxied bool   `json:"proxied"` // plain, to reverse proxies only
	Path    string `json:"path"`    // with the base path, and the secret
	Base    string `json:"base"`    // the base path alone; empty: none
	Until   Moment `json:"until"`
}

// tokenRequest is the body of requests about a token.
type tokenRequest struct {
	Name string        `json:"name"`
	Role store.WebRole `json:"role,omitempty"`
}

// pairRequest is the body of the request for a pairing window.
type pairRequest struct {
	Milliseconds int64 `json:"ms"`
}

// AddToken implements Operator.
func (s *Server) AddToken(ctx context.Context, name string, role store.WebRole) (string, error) {
	secret, _, err := s.store.People().AddToken(ctx, name, role)
	return secret, err
}

// RemoveToken implements Operator.
func (s *Server) RemoveToken(ctx context.Context, name string) error {
	return s.store.People().RemoveToken(ctx, name)
}

// Pair implements Operator.
func (s *Server) Pair(_ context.Context, d time.Duration) (Pairing, error) {
	w, err := s.web("open pairing")
	if err != nil {
		return Pairing{}, err
	}
	return w.Pair(d)
}

// OpenWeb implements Operator.
func (s *Server) OpenWeb(_ context.Context, account string) (WebLink, error) {
	w, err := s.web("open the web page")
	if err != nil {
		return WebLink{}, err
	}
	return w.Link(account)
}

// web is the page, for somebody who wants to do something with it.
func (s *Server) web(what string) (Web, error) {
	if s.running == nil || s.running.Web == nil {
		return nil, fmt.Errorf("%s: %w", what, ErrNoWeb)
	}
	return s.running.Web, nil
}

// AddToken implements Operator.
func (c *Client) AddToken(ctx context.Context, name string, role store.WebRole) (string, error) {
	reply, err := ask[secretReply](ctx, c, http.MethodPost, "/tokens/add", tokenRequest{name, role})
	return reply.Secret, err
}

// RemoveToken implements Operator.
func (c *Client) RemoveToken(ctx context.Context, name string) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/tokens/remove", tokenRequest{Name: name})
	return err
}

// Pair implements Operator.
func (c *Client) Pair(ctx context.Context, d time.Duration) (Pairing, error) {
	return ask[Pairing](ctx, c, http.MethodPost, "/web/pair", pairRequest{d.Milliseconds()})
}

// OpenWeb implements Operator.
func (c *Client) OpenWeb(ctx context.Context, account string) (WebLink, error) {
	return ask[WebLink](ctx, c, http.MethodPost, "/web/open", tokenRequest{Name: account})
}

func handleWeb(o Operator, handle func(string, func(*http.Request) (any, error))) {
	handle("POST /tokens/add", func(r *http.Request) (any, error) {
		token, err := body[tokenRequest](r)
		if err != nil {
			return nil, err
		}
		secret, err := o.AddToken(r.Context(), token.Name, token.Role)
		return secretReply{secret}, err
	})
	handle("POST /tokens/remove", func(r *http.Request) (any, error) {
		token, err := body[tokenRequest](r)
		if err != nil {
			return nil, err
		}
		return struct{}{}, o.RemoveToken(r.Context(), token.Name)
	})
	handle("POST /web/pair", func(r *http.Request) (any, error) {
		pair, err := body[pairRequest](r)
		if err != nil {
			return nil, err
		}
		return o.Pair(r.Context(), time.Duration(pair.Milliseconds)*time.Millisecond)
	})
	handle("POST /web/open", func(r *http.Request) (any, error) {
		account, err := body[tokenRequest](r)
		if err != nil {
			return nil, err
		}
		return o.OpenWeb(r.Context(), account.Name)
	})
}
