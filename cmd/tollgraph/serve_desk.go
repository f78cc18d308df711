package main

import (
	"strconv"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// serveDesk tells the operator what happens: with --json one object per line
// on standard output, else addresses and roots there and the rest beside it.
type serveDesk struct {
	*app
	json bool
	mu   sync.Mutex // serialises lines
}

// event is a line of serve --json.
type event struct {
	Event   string `json:"event"`
	Addr    string `json:"addr,omitempty"`
	CID     string `json:"cid,omitempty"`
	Path    string `json:"path,omitempty"`
	Error   string `json:"error,omitempty"`
	Served  bool   `json:"served,omitempty"`
	Peer    string `json:"peer,omitempty"`
	Deal    string `json:"deal,omitempty"`
	Status  string `json:"status,omitempty"`
	Bytes   uint64 `json:"bytes,omitempty"`
	Paid    string `json:"paid_atto,omitempty"`
	Message string `json:"message,omitempty"`

	Pieces           int    `json:"pieces,omitempty"`
	Blocks           uint64 `json:"blocks,omitempty"`
	Price            string `json:"price_atto_per_byte,omitempty"`
	Interval         uint64 `json:"payment_interval,omitempty"`
	IntervalIncrease uint64 `json:"payment_interval_increase,omitempty"`
	UnsealPrice      string `json:"unseal_price_atto,omitempty"`
	Credit           string `json:"credit_atto,omitempty"`
}

// data writes a line that scripts read, in one of its two forms.
func (d *serveDesk) data(e event, line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.json {
		_ = d.printJSON(e) // whoever stops reading does not stop the service
		return
	}
	_, _ = d.out.Write([]byte(line + "\n"))
}

// note writes a line that people read, or its object.
func (d *serveDesk) note(e event, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.json {
		_ = d.printJSON(e)
		return
	}
	d.sayf(format, args...)
}

func (d *serveDesk) listening(addr string) {
	d.data(event{Event: "listening", Addr: addr}, "listening "+addr)
}

func (d *serveDesk) root(c cid.Cid) {
	d.data(event{Event: "root", CID: c.String()}, "root "+c.String())
}

func (d *serveDesk) problem(p piece.Problem) {
	consequence := "it is left out, the rest is served"
	if p.Served {
		consequence = "it is served all the same"
	}
	d.note(event{Event: "problem", Path: p.Path, Error: p.Err.Error(), Served: p.Served}, "problem: %s: %v; %s", p.Path, p.Err, consequence)
}

// ready says what is sold on which terms.
func (d *serveDesk) ready(s *seller) {
	ask := s.Ask()
	e := event{
		Event: "ready", Pieces: len(s.store.Pieces()), Price: strconv.FormatUint(uint64(ask.PricePerByte), 10),
		Interval: uint64(ask.PaymentInterval), IntervalIncrease: uint64(ask.PaymentIntervalIncrease),
		UnsealPrice: ask.UnsealPrice.String(), Credit: s.till.DefaultCredit().String(),
	}
	for _, p := range s.store.Pieces() {
		e.Blocks += p.Blocks
		e.Bytes += p.PayloadSize
	}
	d.note(e, "serving %s, %s, %s, at %s", count(e.Pieces, "piece"), count(e.Blocks, "block"), voucher.Bytes(e.Bytes).IEC(), priceText(ask.PricePerByte))
	if !d.json && !ask.Terms().Free() && s.till.DefaultCredit().IsZero() {
		d.sayf("no payer has credit (--credit is 0): nobody can buy before a credit line is opened")
	}
}

// deal tells of a deal that begins or ends.
func (d *serveDesk) deal(ev market.ProviderEvent, s market.ProviderDealState) {
	word := map[market.ProviderEvent]string{
		market.ProviderEventOpen: "deal-open", market.ProviderEventComplete: "deal-complete", market.ProviderEventError: "deal-error",
	}[ev]
	if word == "" {
		return
	}
	e := event{
		Event: word, CID: s.PayloadCID.String(), Peer: s.Receiver.String(), Deal: strconv.FormatUint(uint64(s.ID), 10),
		Status: s.Status.String(), Bytes: uint64(s.TotalSent), Paid: s.FundsReceived.String(), Message: s.Message,
	}
	d.note(e, "%s %s: %s to %s, %s, %s received %s", word, e.Deal, e.CID, e.Peer, s.TotalSent.IEC(), s.FundsReceived.FIL(), s.Message)
}

// priceText is a price for people: as it is charged.
func priceText(p voucher.Price) string {
	if p == 0 {
		return "no price"
	}
	return p.PerGiB().FIL() + " per GiB (" + strconv.FormatUint(uint64(p), 10) + " attoFIL per byte)"
}
