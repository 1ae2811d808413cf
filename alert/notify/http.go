package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// mostAnswer bounds what is read of an answer.
const mostAnswer = 16 << 10

// client follows no redirect: a POST would become a GET without the message, and be taken for success.
func client() *http.Client {
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// post sends JSON. Only 2xx is success. The address may hold a secret, so that no error has it.
func post(ctx context.Context, c *http.Client, to string, header http.Header, content any) error {
	text, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("write the message: %w", err)
	}
	return postText(ctx, c, to, header, text)
}

func postText(ctx context.Context, c *http.Client, to string, header http.Header, text []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(text))
	if err != nil {
		return errors.New("its url is no address")
	}
	for name, values := range header {
		request.Header[name] = values
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "PlantOps")
	response, err := c.Do(request)
	if err != nil {
		return withoutAddress(err)
	}
	defer func() { _ = response.Body.Close() }() // only read
	answer, err := io.ReadAll(io.LimitReader(response.Body, mostAnswer))
	if status := response.StatusCode; status < 200 || status > 299 {
		return failed(response, answer)
	}
	if err != nil { // it was cut off: whether the message was taken nobody knows, so it is sent again with its id
		return fmt.Errorf("its answer was cut off: %w", withoutAddress(err))
	}
	return nil
}

// failed makes an error of an answer.
func failed(response *http.Response, answer []byte) error {
	why := fmt.Sprintf("it answers %d %s", response.StatusCode, http.StatusText(response.StatusCode))
	switch response.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if after := retryAfter(response.Header.Get("Retry-After"), answer); after > 0 {
			return &LaterError{after, why}
		}
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %s", ErrRefused, why)
	}
	return errors.New(why)
}

// longestLater bounds how long a channel may ask to be left alone.
const longestLater = time.Hour

// retryAfter reads the header, in seconds or as a time, else what Discord and Telegram write into their answer.
func retryAfter(header string, answer []byte) time.Duration {
	seconds, err := strconv.ParseFloat(header, 64)
	if at, parsed := http.ParseTime(header); err != nil && parsed == nil {
		seconds, err = time.Until(at).Seconds(), nil
	}
	if err != nil {
		var said struct {
			RetryAfter float64 `json:"retry_after"`
			Parameters struct {
				RetryAfter float64 `json:"retry_after"`
			} `json:"parameters"`
		}
		_ = json.Unmarshal(answer, &said) // what it does not say is 0
		seconds = max(said.RetryAfter, said.Parameters.RetryAfter)
	}
	if !(seconds > 0) {
		return 0
	}
	return time.Duration(min(seconds, longestLater.Seconds()) * float64(time.Second))
}

// withoutAddress is err without the address that net/http puts before it.
func withoutAddress(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		if e.Timeout() {
			return errors.New("it does not answer")
		}
		return e.Err
	}
	return err
}
