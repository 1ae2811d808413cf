package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"

	"github.com/plantops/plantops/store"
)

// controlClient asks the server that is running in a data directory.
type controlClient struct {
	socket string
	http   *http.Client
}

// dialControl connects to the server behind socket. The error is errUnreachable when none is there, and
// errUnauthorized when there may be one, but not for this user.
func dialControl(ctx context.Context, socket string) (*controlClient, error) {
	dial := func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	conn, err := dial(ctx)
	if errors.Is(err, fs.ErrPermission) {
		return nil, kindOf(errUnauthorized, withHint(fmt.Errorf("reach the server: %w", err), asServerUser))
	}
	if err != nil {
		return nil, kindOf(errUnreachable, fmt.Errorf("reach the server: %w", err))
	}
	conn.Close()
	return &controlClient{socket, &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives: true,
	}}}, nil
}

func (c *controlClient) Status(ctx context.Context) (status, error) {
	return ask[status](ctx, c, http.MethodGet, "/status", nil)
}

func (c *controlClient) Contact(ctx context.Context) (contact, error) {
	return ask[contact](ctx, c, http.MethodGet, "/contact", nil)
}

func (c *controlClient) Refusals(ctx context.Context) (refusals, error) {
	return ask[refusals](ctx, c, http.MethodGet, "/refusals", nil)
}

func (c *controlClient) AddDevice(ctx context.Context, id string) (string, error) {
	reply, err := ask[secretReply](ctx, c, http.MethodPost, "/devices/add", deviceRequest{id})
	return reply.Secret, err
}

func (c *controlClient) RotateDevice(ctx context.Context, id string) (string, error) {
	reply, err := ask[secretReply](ctx, c, http.MethodPost, "/devices/rotate", deviceRequest{id})
	return reply.Secret, err
}

func (c *controlClient) RemoveDevice(ctx context.Context, id string) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/devices/remove", deviceRequest{id})
	return err
}

func (c *controlClient) AddUser(ctx context.Context, u store.NewUser) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/users/add", userRequest(u))
	return err
}

func (c *controlClient) SetPassword(ctx context.Context, name, password string) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/users/passwd", userRequest{Name: name, Password: password})
	return err
}

func (c *controlClient) RemoveUser(ctx context.Context, name string) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/users/remove", userRequest{Name: name})
	return err
}

func (c *controlClient) ReloadCertificates(ctx context.Context) (int64, error) {
	reply, err := ask[countReply](ctx, c, http.MethodPost, "/certificates/reload", nil)
	return reply.Count, err
}

func (c *controlClient) ReplayQuarantine(ctx context.Context, ids []int64) (replayed, error) {
	return ask[replayed](ctx, c, http.MethodPost, "/quarantine/replay", idList{ids})
}

func (c *controlClient) PurgeQuarantine(ctx context.Context, ids []int64) (int64, error) {
	reply, err := ask[countReply](ctx, c, http.MethodPost, "/quarantine/purge", idList{ids})
	return reply.Count, err
}

// ask sends one request and decodes the reply or the error in it.
func ask[T any](ctx context.Context, c *controlClient, method, path string, body any) (T, error) {
	var reply T
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return reply, err
		}
		sent = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://plantops"+path, sent)
	if err != nil {
		return reply, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return reply, kindOf(errUnreachable, fmt.Errorf("ask the server at %s: %w", c.socket, errors.Unwrap(err)))
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		if err := json.NewDecoder(response.Body).Decode(&reply); err != nil {
			return reply, fmt.Errorf("read the server's answer to %s %s: %w", method, path, err)
		}
		return reply, nil
	}
	var failed controlError
	if err := json.NewDecoder(response.Body).Decode(&failed); err != nil || failed.Text == "" {
		return reply, fmt.Errorf("the server answers %s %s with %s: is it another version?", method, path, response.Status)
	}
	return reply, remoteError{failed, controlKinds()[failed.Kind]}
}

// remoteError is an error of the server.
type remoteError struct {
	controlError
	sentinel error // nil: none that callers look for
}

func (e remoteError) Error() string { return e.Text }
func (e remoteError) Unwrap() error { return e.sentinel }
