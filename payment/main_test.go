package payment

import (
	"testing"

	"go.uber.org/goleak"
)

// This room starts no goroutine: whatever runs at the end was left behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
