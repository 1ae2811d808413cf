package refusal

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLimiter(t *testing.T) {
	var l Limiter
	now := time.Unix(1_000_000, 0)
	_, ok := l.Allow("a", now)
	require.True(t, ok)
	for range 5 {
		_, ok = l.Allow("a", now.Add(59*time.Second))
		require.False(t, ok)
	}
	_, ok = l.Allow("b", now)
	require.True(t, ok, "another key")
	n, ok := l.Allow("a", now.Add(time.Minute))
	require.True(t, ok)
	require.Equal(t, 5, n)

	for i := range 2 * limiterKeys {
		l.Allow(string(rune('A'+i)), now)
	}
	require.LessOrEqual(t, len(l.seen), limiterKeys, "bounded")
	_, ok = l.Allow("new", now.Add(10*time.Minute))
	require.True(t, ok, "old ones make room")
}
