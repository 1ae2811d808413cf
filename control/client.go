package control

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
	"github.com/plantops/plantops/store/backup"
)

// Client asks the server that is running in a data directory. It connects anew for each question, and is safe for
// concurrent use; there is nothing to close.
type Client struct {
	socket string
	http   *http.Client
}

// Dial connects to the server behind socket. The error is ErrUnreachable when none is there, and
// ErrUnauthorized when there may be one, but not for this user.
func Dial(ctx context.Context, socket string) (*Client, error) {
	dial := func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	conn, err := dial(ctx)
	if errors.Is(err, fs.ErrPermission) {
		return nil, Unauthorized(fmt.Errorf("reach the server: %w", err))
	}
	if err != nil {
		return nil, KindOf(ErrUnreachable, fmt.Errorf("reach the server: %w", err))
	}
	conn.Close()
	return &Client{socket, &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives: true,
	}}}, nil
}

// Status implements Operator.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, http.MethodGet, "/status", nil)
}

// Contact implements Operator.
func (c *Client) Contact(ctx context.Context) (Contact, error) {
	return ask[Contact](ctx, c, http.MethodGet, "/contact", nil)
}

// Refusals implements Operator.
func (c *Client) Refusals(ctx context.Context) (Refusals, error) {
	return ask[Refusals](ctx, c, http.MethodGet, "/refusals", nil)
}

// Probe implements Operator.
func (c *Client) Probe(ctx context.Context) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/probe", nil)
	return err
}

// Pass implements Operator.
func (c *Client) Pass(ctx context.Context) (Pass, error) {
	return ask[Pass](ctx, c, http.MethodPost, "/pass", nil)
}

// Sessions implements Operator.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	return ask[[]Session](ctx, c, http.MethodGet, "/sessions", nil)
}

// EndSession implements Operator.
func (c *Client) EndSession(ctx context.Context, client string) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/sessions/end", sessionRequest{client})
	return err
}

// Retained implements Operator.
func (c *Client) Retained(ctx context.Context, filter string, limit int) ([]Retained, error) {
	return ask[[]Retained](ctx, c, http.MethodPost, "/retained/list", retainedRequest{filter, limit})
}

// ClearRetained implements Operator.
func (c *Client) ClearRetained(ctx context.Context, filter string) (int64, error) {
	reply, err := ask[countReply](ctx, c, http.MethodPost, "/retained/clear", retainedRequest{Filter: filter})
	return reply.Count, err
}

// Unread implements Operator.
func (c *Client) Unread(ctx context.Context) (Unread, error) {
	return ask[Unread](ctx, c, http.MethodGet, "/unread", nil)
}

// AddDevice implements Operator.
func (c *Client) AddDevice(ctx context.Context, id string) (string, error) {
	reply, err := ask[secretReply](ctx, c, http.MethodPost, "/devices/add", deviceRequest{id})
	return reply.Secret, err
}

// AddOtherDevice implements Operator.
func (c *Client) AddOtherDevice(ctx context.Context, id string, publish, subscribe []string) (string, error) {
	request := userRequest{Name: id, Publish: publish, Subscribe: subscribe}
	reply, err := ask[secretReply](ctx, c, http.MethodPost, "/devices/add-other", request)
	return reply.Secret, err
}

// RotateDevice implements Operator.
func (c *Client) RotateDevice(ctx context.Context, id string) (string, error) {
	reply, err := ask[secretReply](ctx, c, http.MethodPost, "/devices/rotate", deviceRequest{id})
	return reply.Secret, err
}

// RemoveDevice implements Operator.
func (c *Client) RemoveDevice(ctx context.Context, id string) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/devices/remove", deviceRequest{id})
	return err
}

// PurgeDevice implements Operator.
func (c *Client) PurgeDevice(ctx context.Context, id string) (int64, error) {
	reply, err := ask[countReply](ctx, c, http.MethodPost, "/devices/purge", deviceRequest{id})
	return reply.Count, err
}

// AddUser implements Operator.
func (c *Client) AddUser(ctx context.Context, u store.NewUser) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/users/add", userRequest(u))
	return err
}

// SetPassword implements Operator.
func (c *Client) SetPassword(ctx context.Context, name, password string) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/users/passwd", userRequest{Name: name, Password: password})
	return err
}

// RemoveUser implements Operator.
func (c *Client) RemoveUser(ctx context.Context, name string) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/users/remove", userRequest{Name: name})
	return err
}

// ReloadCertificates implements Operator.
func (c *Client) ReloadCertificates(ctx context.Context) (int64, error) {
	reply, err := ask[countReply](ctx, c, http.MethodPost, "/certificates/reload", nil)
	return reply.Count, err
}

// ReplayQuarantine implements Operator.
func (c *Client) ReplayQuarantine(ctx context.Context, ids []int64) (Replayed, error) {
	return ask[Replayed](ctx, c, http.MethodPost, "/quarantine/replay", idList{ids})
}

// PurgeQuarantine implements Operator.
func (c *Client) PurgeQuarantine(ctx context.Context, ids []int64) (int64, error) {
	reply, err := ask[countReply](ctx, c, http.MethodPost, "/quarantine/purge", idList{ids})
	return reply.Count, err
}

// Retention implements Operator.
func (c *Client) Retention(ctx context.Context) (WaitingRetention, error) {
	return ask[WaitingRetention](ctx, c, http.MethodGet, "/retention", nil)
}

// ConfirmRetention implements Operator.
func (c *Client) ConfirmRetention(ctx context.Context, seen Retention) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/retention/confirm", seen)
	return err
}

// NoteBackup implements Operator.
func (c *Client) NoteBackup(ctx context.Context, e backup.Entry) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/backup/note", e)
	return err
}

// ask sends one request and decodes the reply or the error in it.
func ask[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
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
		return reply, KindOf(ErrUnreachable, fmt.Errorf("ask the server at %s: %w", c.socket, errors.Unwrap(err)))
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		if err := json.NewDecoder(response.Body).Decode(&reply); err != nil {
			return reply, fmt.Errorf("read the server's answer to %s %s: %w", method, path, err)
		}
		return reply, nil
	}
	var failed socketError
	if err := json.NewDecoder(response.Body).Decode(&failed); err != nil || failed.Text == "" {
		return reply, fmt.Errorf("the server answers %s %s with %s: is it another version?", method, path, response.Status)
	}
	return reply, remoteError{failed, socketKinds()[failed.Kind]}
}

// remoteError is an error of the server.
type remoteError struct {
	socketError
	sentinel error // nil: none that callers look for
}

func (e remoteError) Error() string { return e.Text }
func (e remoteError) Unwrap() error { return e.sentinel }
