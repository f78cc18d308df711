package main

import (
	"context"
	"net/http"
	"strconv"
	"time"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// heartbeat is how long a stream is silent at most, so that a reader who is
// gone is found out.
const heartbeat = 15 * time.Second

// getEvents streams what happens to deals from now on: "client" and
// "provider" events. A slow reader misses steps, not the last state of a deal.
func (o *office) getEvents(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	type item struct {
		role string
		view eventView
	}
	items := make(chan item)
	pass := func(role, event string, d deal) {
		select {
		case items <- item{role, eventView{event, d}}:
		case <-ctx.Done():
		}
	}
	if o.buyer != nil {
		defer o.buyer.SubscribeToEvents(func(ev market.ClientEvent, s market.ClientDealState) { pass("client", clientEvents[ev], clientDeal(s)) })()
	}
	if o.seller != nil {
		defer o.seller.SubscribeToEvents(func(ev market.ProviderEvent, s market.ProviderDealState) {
			pass("provider", providerEvents[ev], providerDeal(s))
		})()
	}
	defer cancel() // before the subscriptions end
	s := newStream(w)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		var err error
		select {
		case i := <-items:
			err = s.send(i.role, i.view)
		case <-beat.C:
			err = s.beat()
		case <-ctx.Done():
			return
		}
		if err != nil {
			return // the reader is gone
		}
	}
}

// begun answers a fetch that nobody waits for.
type begun struct {
	Deal string `json:"deal"`
}

// postFetch begins to buy. What is wrong with it at the start is answered as an
// error. With wait=true the answer is a stream of "deal", "progress" and
// "parked", and at the end "receipt" or "error"; a reader who leaves does not
// stop it.
func (o *office) postFetch(w http.ResponseWriter, r *http.Request) {
	j, err := o.order(r)
	if err != nil {
		if o.stats.refused("client", err); o.buyer != nil {
			err = adviseRefusal(err)
		}
		writeError(w, err)
		return
	}
	answer := begun{strconv.FormatUint(uint64(j.id), 10)}
	if r.URL.Query().Get("wait") != "true" {
		writeJSON(w, http.StatusAccepted, answer)
		return
	}
	o.follow(r.Context(), newStream(w), j, answer)
}

// order begins what the body of r orders.
func (o *office) order(r *http.Request) (*job, error) {
	if o.buyer == nil {
		return nil, errOnlySells
	}
	var from order
	if err := readBody(r, &from); err != nil {
		return nil, err
	}
	p, err := from.purchase()
	if err != nil {
		return nil, err
	}
	if p.output.path != "" {
		if err := p.output.check(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), apiTimeout)
	defer cancel()
	if err := underCeiling(ctx, o.node.repo.db, &p); err != nil {
		return nil, err
	}
	return o.begin(ctx, p, &from)
}

// follow streams how j goes on, until it is done.
func (o *office) follow(ctx context.Context, s stream, j *job, answer begun) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	states := make(chan market.ClientDealState)
	defer o.buyer.SubscribeToEvents(func(_ market.ClientEvent, st market.ClientDealState) {
		if st.Whole != j.root {
			return
		}
		select {
		case states <- st:
		case <-j.done:
		case <-ctx.Done():
		}
	})()
	err := s.send("deal", answer)
	if st, known := o.buyer.RetrievalStatus(ctx, j.id); err == nil && known == nil {
		err = s.sendState(st)
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for err == nil {
		select {
		case st := <-states:
			err = s.sendState(st)
		case <-beat.C:
			err = s.beat()
		case <-j.done:
			_ = s.sendEnd(j, answer) // the last word
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s stream) sendState(st market.ClientDealState) error {
	if st.Status == voucher.DealStatusInsufficientFunds {
		return s.send("parked", clientDeal(st))
	}
	return s.send("progress", clientDeal(st))
}

func (s stream) sendEnd(j *job, answer begun) error {
	if j.err != nil {
		return s.send("error", apiError{Error: j.err.Error(), Code: exitCode(j.err), Deal: answer.Deal})
	}
	return s.send("receipt", j.got)
}
