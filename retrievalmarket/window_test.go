package retrievalmarket

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWindow(t *testing.T) {
	for _, tc := range []struct {
		risk Bytes
		took time.Duration
		want Bytes
	}{
		{32 << 20, time.Millisecond, 16 << 20},
		{32 << 20, patientAck, 28 << 20},
		{32 << 20, time.Second, 28 << 20},
		{128 << 20, time.Millisecond, 64 << 20},
		{16 << 20, time.Millisecond, 14 << 20}, // too little for large steps
		{4 << 20, time.Millisecond, 7 << 19},
		{0, 0, 0},
	} {
		if got := window(tc.risk, tc.took); got != tc.want {
			t.Errorf("window(%d, %s) = %d, want %d", tc.risk, tc.took, got, tc.want)
		}
	}
}

// TestWindowLaws: never more than the risk, and never smaller for slower payments.
func TestWindowLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		risk := Bytes(rapid.Uint64().Draw(t, "risk"))
		quick, slow := window(risk, 0), window(risk, time.Minute)
		if quick > risk || slow > risk || slow < quick {
			t.Fatalf("risk %d: %d when quick, %d when slow", risk, quick, slow)
		}
	})
}
