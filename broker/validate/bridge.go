package validate

// BridgeBit finds the bit in the protocol version of a CONNECT by which a bridge of Mosquitto says what it is (0x84 for
// MQTT 3.1.1, 0x83 for 3.1), and takes it away: no specification has it, and mochi would not take the version. The zero value is ready.
type BridgeBit struct {
	Found bool

	at     uint8 // bytes seen of the packet
	header uint8 // length of the fixed header; 0: not known yet
	name   uint8 // length of the protocol's name
	done   bool
}

// Take looks at the next bytes of the connection, and changes the one.
func (b *BridgeBit) Take(p []byte) {
	for i := 0; i < len(p) && !b.done; i++ {
		c, body := p[i], b.at-b.header
		switch {
		case b.at == 0:
			b.done = c>>4 != 1
		case b.header == 0:
			if c < 0x80 {
				b.header = b.at + 1
			}
			b.done = b.at > 4
		case body == 0:
			b.done = c != 0
		case body == 1:
			b.name = c
			b.done = c != 4 && c != 6
		case body == 2+b.name:
			if b.Found = b.name == 4 && c == 0x84 || b.name == 6 && c == 0x83; b.Found {
				p[i] = c &^ 0x80
			}
			b.done = true
		}
		b.at++
	}
}
