package main

import (
	"path"
	"sync"

	"github.com/cheggaaa/pb/v3"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

// progress draws how far a fetch is, on a terminal; elsewhere it does nothing.
type progress struct {
	mu  sync.Mutex
	bar *pb.ProgressBar // nil if nothing is drawn
}

const progressTemplate = `{{string . "name"}} {{counters .}} {{bar .}} {{percent .}} {{speed . }} {{rtime . "ETA %s"}} | {{string . "paid"}}`

// newProgress starts drawing.
func (a *app) newProgress(p purchase) *progress {
	if !terminal(a.err) {
		return &progress{}
	}
	name := p.root.String()
	if p.path != "" {
		name = path.Base(p.path)
	}
	bar := pb.ProgressBarTemplate(progressTemplate).New(0)
	bar.SetWriter(a.err).Set(pb.Bytes, true).Set(pb.Terminal, true).Set("name", name)
	return &progress{bar: bar.Start()}
}

// show draws the state of the deal.
func (p *progress) show(s market.ClientDealState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar == nil {
		return
	}
	p.bar.SetTotal(int64(min(s.Expected, 1<<62)))
	p.bar.SetCurrent(int64(min(s.TotalReceived, 1<<62)))
	p.bar.Set("paid", "paid "+s.FundsSpent.FIL()+" of "+s.TotalFunds.FIL())
}

// finish stops drawing.
func (p *progress) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.bar.Finish()
		p.bar = nil
	}
}
