package transport

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// busyConn takes a while for each write, as a socket does that is never full.
type busyConn struct {
	net.Conn
	each time.Duration
}

func (c busyConn) Write(b []byte) (int, error) {
	time.Sleep(c.each) // of the bubble's clock
	return len(b), nil
}

// TestTurns: who writes without ever waiting gives way when its turn is over, and not
// for each write.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gaveWay := 0
		c := &turnConn{Conn: busyConn{each: writeTurn / 3}, yield: func() { gaveWay++ }, since: time.Now()}
		for range 30 {
			if n, err := c.Write(make([]byte, 10)); n != 10 || err != nil {
				t.Fatalf("%d bytes, %v", n, err)
			}
		}
		if gaveWay != 10 {
			t.Errorf("gave way %d times in 10 turns", gaveWay)
		}
	})
}
