package retrievalmarket

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// slowPieces have blocks that nobody ever finds.
type slowPieces struct {
	Pieces
	take time.Duration // to find that out
}

func (p slowPieces) BlockSize(cid.Cid) (uint64, bool) { return 0, false }

func (p slowPieces) LinkSystem(cid.Cid) ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.StorageReadOpener = func(ipld.LinkContext, ipld.Link) (io.Reader, error) {
		time.Sleep(p.take)
		return nil, errors.New("not here")
	}
	return ls
}

// TestQuoteTurns: quotes of one peer that take long are taken one after the other, and
// another peer's waits for none of them.
func TestQuoteTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuoter(slowPieces{take: 4 * time.Second}, 100)
		roots := 0
		ask := func(from peer.ID) <-chan time.Duration {
			roots++
			hash, err := multihash.Sum([]byte{byte(roots)}, multihash.SHA2_256, -1)
			if err != nil {
				t.Fatal(err)
			}
			took, begun := make(chan time.Duration, 1), time.Now()
			go func() {
				_, err := q.measure(t.Context(), from, Piece{ID: cid.NewCidV1(cid.DagCBOR, hash)}, cid.NewCidV1(cid.DagCBOR, hash), nil)
				if errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v", from, err)
				}
				took <- time.Since(begun)
			}()
			synctest.Wait()
			return took
		}
		crowd := []<-chan time.Duration{ask("crowd"), ask("crowd")}
		if got := <-ask("one"); got != 4*time.Second {
			t.Errorf("another peer's quote took %s", got)
		}
		for i, took := range crowd {
			if got, want := <-took, time.Duration(i+1)*4*time.Second; got != want {
				t.Errorf("quote %d took %s, want %s", i, got, want)
			}
		}
		synctest.Wait()
		if len(q.turns) != 0 {
			t.Errorf("%d peers' turns are left", len(q.turns))
		}
	})
}
