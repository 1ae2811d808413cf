// Package door is the ways into a broker: plain, TLS and websocket. What goes through is a connection that says what it
// likes, right or wrong, byte by byte.
package door
