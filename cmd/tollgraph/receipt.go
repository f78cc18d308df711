package main

import (
	"fmt"
	"strconv"
	"time"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// receipt is what was bought, for how much. Its JSON is what scripts rely on:
// fields are added, never changed.
type receipt struct {
	CID      string  `json:"cid"`
	Path     string  `json:"path"`
	Output   string  `json:"output"`
	Verified bool    `json:"verified"`
	Bytes    uint64  `json:"bytes"`  // unique block bytes received in the deal
	Blocks   uint64  `json:"blocks"` // that these are
	Payments int     `json:"payments"`
	Stalls   int     `json:"stalls"` // times the transfer stood still for money, the first boundary not counted
	Paid     string  `json:"paid_atto"`
	Price    string  `json:"price_atto_per_byte"`
	Seconds  float64 `json:"seconds"`      // of this run, until all was here and paid
	TTFB     float64 `json:"ttfb_seconds"` // from the deal's beginning
	Rate     float64 `json:"mib_per_second"`
	Provider string  `json:"provider"`
	Deal     string  `json:"deal"`

	state market.ClientDealState
}

// newReceipt sums up a deal that has completed. Its output was written with
// every block hashed: it is verified.
func newReceipt(p purchase, s market.ClientDealState, a arrival, took time.Duration) receipt {
	r := receipt{
		CID: p.root.String(), Path: p.path, Output: p.output.path, Verified: true,
		Bytes: uint64(s.TotalReceived), Blocks: a.blocks, Payments: s.Payments, Stalls: s.Stalls,
		Paid: s.FundsSpent.String(), Price: strconv.FormatUint(uint64(s.Params.PricePerByte), 10),
		Seconds: took.Seconds(), TTFB: s.FirstByte.Seconds(),
		Provider: s.Sender.String(), Deal: strconv.FormatUint(uint64(s.ID), 10), state: s,
	}
	if took > 0 {
		r.Rate = float64(a.bytes) / took.Seconds() / (1 << 20)
	}
	return r
}

// String is the receipt for people.
func (r receipt) String() string {
	what := target{r.state.PayloadCID, r.Path}.String()
	if r.Bytes == 0 {
		return fmt.Sprintf("%s is in %s\n  everything was here already: nothing fetched, nothing paid", what, r.Output)
	}
	return fmt.Sprintf("%s is in %s\n"+
		"  received  %s in %s, every one verified (%d bytes)\n"+
		"  paid      %s in %s, at %s\n"+
		"  took      %.2f s, %.1f MiB/s, first byte after %.3f s, %s\n"+
		"  deal      %s with %s",
		what, r.Output, voucher.Bytes(r.Bytes).IEC(), count(r.Blocks, "block"), r.Bytes,
		r.state.FundsSpent.FIL(), count(r.Payments, "payment"), priceText(r.state.Params.PricePerByte),
		r.Seconds, r.Rate, r.TTFB, count(r.Stalls, "stall"), r.Deal, r.Provider)
}
