package network

import "encoding/binary"

// crypto/tls keeps the buffer of the largest record for as long as a connection lasts, and for most clients that is their first: a
// ClientHello of 1.5 kB, where MQTT needs a fraction of it. So that record is given to it as several small ones. A handshake message
// may be spread over any number of records (RFC 8446, 5.1; RFC 5246, 6.2.1); the frames of the first are in the clear, and no part of
// what is authenticated.

// hello is the first record of a TLS client, until crypto/tls has read it.
type hello struct {
	bytes []byte // what has come, then what is left of the small records
	ready bool   // they are to be given
	left  int    // of the small record that has been begun
}

const (
	recordHeader = 5 // type, version, length
	// pieceBytes and a header are less than the first buffer that crypto/tls makes.
	pieceBytes      = 512
	maxRecordBytes  = 16 << 10 // without encryption
	clientHelloType = 1        // of the handshake message
)

// readHello is Read until the first record has been given.
func (s *socket) readHello(p []byte) (int, error) {
	h := s.hello
	for !h.ready {
		missing := missingOfHello(h.bytes)
		if h.ready = missing == 0; h.ready {
			h.bytes = smallRecords(h.bytes)
			break
		}
		had := len(h.bytes)
		h.bytes = append(h.bytes, make([]byte, missing)...)
		n, err := s.readSome(h.bytes[had:])
		h.bytes = h.bytes[:had+n]
		if err != nil {
			if had+n == 0 {
				return 0, err
			}
			h.ready, h.left = true, had+n // which are no record; the error comes again
		}
	}
	if h.left == 0 {
		h.left = len(h.bytes)
		if h.left > recordHeader && h.bytes[0] == tlsHandshakeRecord {
			h.left = min(h.left, recordHeader+int(binary.BigEndian.Uint16(h.bytes[3:])))
		}
	}
	n := copy(p, h.bytes[:h.left]) // one at a time, or the buffer would grow for the beginning of the next
	h.bytes, h.left = h.bytes[n:], h.left-n
	if len(h.bytes) == 0 {
		s.hello = nil
	}
	return n, nil
}

// missingOfHello is how many more bytes are to be read before the beginning of a connection is given to crypto/tls: 0 when it is a
// ClientHello, as a whole record, or cannot become one.
func missingOfHello(b []byte) int {
	switch {
	case len(b) == 0:
		return recordHeader
	case b[0] != tlsHandshakeRecord || len(b) > recordHeader && b[recordHeader] != clientHelloType:
		return 0
	case len(b) < recordHeader:
		return recordHeader - len(b)
	}
	length := int(binary.BigEndian.Uint16(b[3:]))
	if length > maxRecordBytes {
		return 0
	}
	return max(0, recordHeader+length-len(b))
}

// smallRecords spreads a record over several. They are of one size, the message's by a power of two: in the buffer for messages, which
// crypto/tls doubles, no more remains than for one record.
func smallRecords(record []byte) []byte {
	if len(record) <= recordHeader+pieceBytes || record[0] != tlsHandshakeRecord || record[recordHeader] != clientHelloType {
		return record
	}
	message := record[recordHeader:]
	pieces := 2
	for (len(message)+pieces-1)/pieces > pieceBytes {
		pieces *= 2
	}
	size := (len(message) + pieces - 1) / pieces
	out := make([]byte, 0, len(record)+pieces*recordHeader)
	for len(message) > 0 {
		piece := message[:min(size, len(message))]
		out = append(out, record[:3]...)
		out = binary.BigEndian.AppendUint16(out, uint16(len(piece)))
		out = append(out, piece...)
		message = message[len(piece):]
	}
	return out
}
