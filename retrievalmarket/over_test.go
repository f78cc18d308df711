package retrievalmarket

import (
	"testing"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestOver: that a channel had nothing more to send says nothing of the one in its
// place, nor of itself once it was restarted.
func TestOver(t *testing.T) {
	one, two := datatransfer.ChannelID{ID: 1}, datatransfer.ChannelID{ID: 2}
	d := &providerDeal{p: &Provider{}, deal: Deal{Phase: Moving, Account: revalidator.Account{Terms: voucher.Terms{Price: 1, Interval: 100}}}}
	d.view.chid = one
	if d.over() {
		t.Error("over before anything was said")
	}
	d.sentAll = one
	if !d.over() {
		t.Error("not over")
	}
	if d.view.chid = two; d.over() {
		t.Error("another channel is over")
	}
	d.view.chid = one
	if d.handle(t.Context(), attachNote{chid: one, old: one}); d.over() {
		t.Error("over although it was restarted")
	}
}

// TestMayBeginAt pins where further channels of a deal may begin.
func TestMayBeginAt(t *testing.T) {
	for name, tc := range map[string]struct {
		v    channelView
		skip int64
		may  bool
	}{
		"nothing sent, same place":       {channelView{pinned: true, first: 5}, 5, true},
		"nothing sent, further on":       {channelView{pinned: true, first: 5}, 6, false},
		"nothing sent, before":           {channelView{pinned: true, first: 5}, 4, false},
		"sent, same place":               {channelView{pinned: true, first: 5, baseKnown: true}, 5, true},
		"sent, further on":               {channelView{pinned: true, first: 5, baseKnown: true}, 50, true},
		"sent, before":                   {channelView{pinned: true, first: 5, baseKnown: true}, 4, false},
		"where it began is not in links": {channelView{baseKnown: true}, 0, true},
	} {
		if err := tc.v.mayBeginAt(tc.skip); (err == nil) != tc.may {
			t.Errorf("%s: %v", name, err)
		}
	}
}
