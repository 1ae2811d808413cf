package validate

import "github.com/plantops/plantops/broker/refusal"

// PacketFault is what is wrong with the form of a packet.
type PacketFault struct {
	refusal.Refusal
	Kind   byte   // of packet, as in its first byte; 0 when it is not known
	Detail string // of a malformed packet
}

// Error is the reason with the detail.
func (f *PacketFault) Error() string {
	if f.Detail == "" {
		return f.Reason
	}
	return f.Reason + ": " + f.Detail
}

// malformed is for bytes that cannot be taken apart as the standard says [MQTT 5, 4.13.1].
func malformed(kind byte, detail string) *PacketFault {
	return &PacketFault{refusal.MalformedPacket, kind, detail}
}

// Violation is for a packet that can be read and may not be sent.
func Violation(kind byte, r refusal.Refusal) *PacketFault {
	return &PacketFault{Refusal: r, Kind: kind}
}
