package network

import (
	"bytes"
	"crypto/tls"
	"io"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func bufferAt(c *tls.Conn, offset uintptr) *bytes.Buffer {
	return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), offset))
}

func TestIdleTLSConnectionsKeepNoBuffers(t *testing.T) {
	require.NotZero(t, recordBuffer, "crypto/tls has changed: look where its buffers are now")
	require.NotZero(t, handshakeBuffer)
	kept := make(chan int, 100)
	n := newTestNet(t, Limits{}).start(t, TLS, func(c *Conn) error {
		c.Admitted("bed-1")
		buf := make([]byte, 1000) // less than a record
		for {
			c.AwaitInput()
			got, err := c.Read(buf)
			for ; err == nil; got, err = c.Read(buf) {
				if _, err := c.Write(buf[:got]); err != nil {
					return err
				}
			}
			if err != ErrNoInput {
				return err
			}
			inner := c.stream.(*tls.Conn)
			if bufferAt(inner, recordBuffer).Len() == 0 {
				giveBackRecord(inner) // AwaitInput does the same
				kept <- bufferAt(inner, recordBuffer).Cap() + bufferAt(inner, handshakeBuffer).Cap()
			}
		}
	})
	c := tls.Client(n.rawDial(t, ""), &tls.Config{InsecureSkipVerify: true})
	assert.NoError(t, c.Handshake())
	assert.Zero(t, <-kept)
	for size := 1; size < 100_000; size = 3*size + 1 {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		go c.Write(sent)
		got := make([]byte, size)
		_, err := io.ReadFull(c, got)
		require.NoError(t, err)
		assert.Equal(t, sent, got)
		assert.Zero(t, <-kept)
		for len(kept) > 0 {
			assert.Zero(t, <-kept)
		}
	}
	c.Close()
}
