package broker

import (
	"context"
	"log/slog"
)

// mochiLog is what mochi logs to. Its lines hold whole packets, payloads and on a second CONNECT the password too, and
// warn about every ordinary disconnect, one of them without any words. Here they become debug lines without packets:
// what a person should know (connections, refusals, losses) the hook and Stats say in our words.
type mochiLog struct{ next slog.Handler }

func (m mochiLog) Enabled(ctx context.Context, level slog.Level) bool {
	return m.next.Enabled(ctx, mochiLevel(level))
}

func (m mochiLog) Handle(ctx context.Context, r slog.Record) error {
	message := r.Message
	if message == "" {
		message = "no message"
	}
	out := slog.NewRecord(r.Time, mochiLevel(r.Level), "mochi: "+message, 0)
	r.Attrs(func(a slog.Attr) bool {
		if !holdsPacket(a) {
			out.AddAttrs(a)
		}
		return true
	})
	return m.next.Handle(ctx, out)
}

func (m mochiLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	var kept []slog.Attr
	for _, a := range attrs {
		if !holdsPacket(a) {
			kept = append(kept, a)
		}
	}
	return mochiLog{m.next.WithAttrs(kept)}
}

func (m mochiLog) WithGroup(name string) slog.Handler { return mochiLog{m.next.WithGroup(name)} }

// mochiLevel keeps errors, which a healthy mochi does not log, and lowers everything else.
func mochiLevel(level slog.Level) slog.Level {
	if level >= slog.LevelError {
		return level
	}
	return slog.LevelDebug
}

// holdsPacket lets only plain values through: whatever mochi adds under whatever key, no struct gets into the log.
func holdsPacket(a slog.Attr) bool {
	if a.Value.Kind() != slog.KindAny {
		return false
	}
	_, isError := a.Value.Any().(error)
	return !isError
}
