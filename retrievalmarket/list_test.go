package retrievalmarket

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/voucher"
)

// TestListWhileEnding: a deal that ends while the list is being read, behind the
// reading of its record, is shown as it ended.
func TestListWhileEnding(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		d := &clientDeal{id: 1}
		c := &Client{live: map[DealID]*clientDeal{d.id: d}}
		states, err := c.list(func() ([]ClientDealState, error) {
			stored := ClientDealState{DealProposal: voucher.DealProposal{ID: d.id}, Status: voucher.DealStatusOngoing}
			d.state = stored
			d.state.Status, d.state.FundsSpent = voucher.DealStatusCompleted, voucher.Atto(9)
			delete(c.live, d.id)
			return []ClientDealState{stored}, nil
		})
		if err != nil || len(states) != 1 || states[0].Status != voucher.DealStatusCompleted || states[0].FundsSpent != voucher.Atto(9) {
			t.Errorf("%+v, %v", states, err)
		}
	})
	t.Run("provider", func(t *testing.T) {
		key := ProviderDealID{peer.ID("client"), 1}
		d := &providerDeal{key: key}
		p := &Provider{live: map[ProviderDealID]*providerDeal{key: d}}
		states, err := p.list(func() ([]record, error) {
			d.view.instance, d.view.state.FundsReceived = 7, voucher.Atto(9)
			delete(p.live, key)
			return []record{{Instance: 7}}, nil
		})
		if err != nil || len(states) != 1 || states[0].FundsReceived != voucher.Atto(9) {
			t.Errorf("%+v, %v", states, err)
		}
	})
}
