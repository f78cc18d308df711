package retrievalmarket

import (
	"testing"
	"time"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// heldStore holds so many bytes.
type heldStore struct {
	Store
	held uint64
}

func (s heldStore) Written() uint64 { return s.held }

// TestPatienceForWhatIsHeld: a channel that begins behind much that is held has the
// time to get there, and none more once it has brought something.
func TestPatienceForWhatIsHeld(t *testing.T) {
	c := &Client{}
	c.cfg.UnsealPatience = time.Hour
	const usual = 20 * time.Second
	open := line{open: true, from: 7}
	for name, tc := range map[string]struct {
		d    *clientDeal
		want time.Duration
	}{
		"little is held":  {&clientDeal{line: open, seen: 7, store: heldStore{held: 1 << 10}}, usual},
		"64 GiB are held": {&clientDeal{line: open, seen: 7, store: heldStore{held: 64 << 30}}, usual + 1024*time.Second},
		"bytes came":      {&clientDeal{line: open, seen: 8, store: heldStore{held: 64 << 30}}, usual},
		"no channel":      {&clientDeal{line: line{from: 7}, seen: 7, store: heldStore{held: 64 << 30}}, usual},
		"it unseals": {&clientDeal{line: open, store: heldStore{held: 64 << 30}, deal: Deal{Account: revalidator.Account{
			Terms: voucher.Terms{Unseal: voucher.Atto(1)}, Paid: voucher.Atto(1)}}}, time.Hour},
	} {
		tc.d.c = c
		if got := tc.d.patience(usual); got.Round(time.Second) != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}
