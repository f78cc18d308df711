package transport

import (
	"math/rand/v2"
	"runtime"
	"testing"
)

// TestReceiveBufferHeld: a buffer of which a slice is held anywhere is not given to
// anybody else, however long it is held.
func TestReceiveBufferHeld(t *testing.T) {
	type part struct {
		b    []byte
		mark byte
	}
	var held []part
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		b := receiveBuffer([]int{1 << 10, 300 << 10, smallBuffer, smallBuffer + 1, largeBuffer}[i%5])
		mark := byte(i%255 + 1)
		at := rng.IntN(len(b) - 16)
		for j := range b {
			b[j] = 0
		}
		b[at] = mark
		held = append(held, part{b[at : at+16 : at+16], mark})
		if len(held) > 20 { // let one go that is neither the first nor the last
			k := 1 + rng.IntN(len(held)-2)
			held = append(held[:k], held[k+1:]...)
		}
		if i%10 == 0 {
			runtime.GC()
		}
		for _, p := range held {
			if p.b[0] != p.mark {
				t.Fatalf("buffer %d took one that is held", i)
			}
		}
	}
}

// TestReceiveBufferReuse: what nobody holds is used again; fresh memory is zero.
func TestReceiveBufferReuse(t *testing.T) {
	for range 200 {
		if b := receiveBuffer(largeBuffer); b[0] == 1 {
			return
		} else {
			b[0] = 1
		}
		runtime.GC()
	}
	t.Error("no buffer of 200 was used again")
}

// TestReceiveBufferSize: a store that keeps a block keeps at most twice its message.
func TestReceiveBufferSize(t *testing.T) {
	for _, n := range []int{0, 1, smallBuffer / 2, smallBuffer/2 + 1, smallBuffer, smallBuffer + 1, largeBuffer, readStep} {
		if b := receiveBuffer(n); len(b) != n || cap(b) > 2*n {
			t.Errorf("%d of %d bytes for %d", len(b), cap(b), n)
		}
	}
}
