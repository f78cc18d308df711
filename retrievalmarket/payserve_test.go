package retrievalmarket

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/voucher"
)

// trusting takes any voucher for what its test says.
type trusting struct{ total Amount }

func (n *trusting) SavePaymentVoucher(context.Context, address.Address, *SignedVoucher, []byte, Amount) (Amount, error) {
	return n.total, nil
}

// TestFrameNews: a payment frame saves its client's turn only if it takes the deal
// further: little more than what was paid does not, and the same again neither.
func TestFrameNews(t *testing.T) {
	db := testDB(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	node := new(trusting)
	p := &Provider{cfg: ProviderConfig{Node: node}, log: slog.New(slog.DiscardHandler), book: newProviderBook(db)}
	p.streams = newProviderStreams(p)
	r := testRecord(t, 9) // 10 bytes an interval, 3 attoFIL a byte
	r.Paid, r.Moved, r.Ready = Amount{}, 0, true
	d, err := p.revive(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		paid uint64
		done bool
		news bool
	}{{1, false, false}, {2, false, false}, {30, false, true}, {30, false, false}, {59, false, false}, {60, false, true}, {60, true, true}} {
		node.total = voucher.Atto(f.paid)
		ack := d.takeFrame(t.Context(), payFrame{id: 9, payment: testPayment(t), done: f.done})
		if ack.news != f.news || ack.refused != 0 || ack.paid != node.total || ack.settled != f.done {
			t.Errorf("%d paid, done %v: %+v", f.paid, f.done, ack)
		}
	}
}
