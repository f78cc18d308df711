package retrievalmarket

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestAskAnew: a payment that came while the request for it was still being sent,
// and was too little, makes the deal ask for the rest.
func TestAskAnew(t *testing.T) {
	terms := voucher.Terms{Price: 1, Interval: 100}
	d := &providerDeal{deal: Deal{Phase: Moving, Ready: true, Account: revalidator.Account{Terms: terms, Moved: 100}}}
	first := d.askFor()
	if first == nil {
		t.Fatal("nothing is asked for")
	}
	d.telling = &telling{reply: first, asked: first.PaymentOwed}
	d.deal.Account.Paid = voucher.Atto(1)
	d.askAnew()
	d.hasTold()
	if rest := d.askFor(); rest == nil || rest.PaymentOwed != d.deal.Account.Due() {
		t.Errorf("of %s the rest is not asked for: %+v", first.PaymentOwed, rest)
	}
	d.telling = &telling{asked: d.deal.Account.Paid.Add(d.deal.Account.Due())}
	if d.hasTold(); d.askFor() != nil {
		t.Error("the same is asked for twice")
	}
}

// TestToldInVain: what could not be said waits for something to happen, and what
// happened while it was being said is that.
func TestToldInVain(t *testing.T) {
	d := &providerDeal{p: &Provider{log: slog.New(slog.DiscardHandler)}}
	for _, happened := range []bool{false, true} {
		d.telling = &telling{err: errors.New("not now")}
		if happened {
			d.happened()
		}
		if d.hasTold(); d.untold == happened {
			t.Errorf("something happened: %v, it waits: %v", happened, d.untold)
		}
	}
}

// TestWordInVain: a word that is said once is kept until it was, unless a newer one
// takes its place; a request for money is made anew where it is still due.
func TestWordInVain(t *testing.T) {
	old, newer := &voucher.DealResponse{Message: "old"}, &voucher.DealResponse{Message: "newer"}
	for _, c := range []struct {
		word          bool
		said, now, is *voucher.DealResponse
	}{{true, old, nil, old}, {true, old, newer, newer}, {false, old, nil, nil}} {
		d := &providerDeal{p: &Provider{log: slog.New(slog.DiscardHandler)}, word: c.now}
		d.telling = &telling{reply: c.said, word: c.word, err: errors.New("not now")}
		if d.hasTold(); d.word != c.is {
			t.Errorf("%+v: %v is to be said", c, d.word)
		}
	}
}
