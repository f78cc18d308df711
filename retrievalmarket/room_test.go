package retrievalmarket

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestLeastMissed: of the largest network the one goes that has paid least, and of
// those the oldest, at once if that network has more than the one that the new deal is
// from, and else when it had its time.
func TestLeastMissed(t *testing.T) {
	now := time.Unix(1000, 0)
	ago := func(s int) time.Time { return now.Add(time.Duration(-s) * time.Second) }
	crowd := []waiter{{"a", ago(5), false, 0}, {"b", ago(50), false, 0}, {"a", ago(6), false, 0}, {"a", ago(4), false, 0}}
	paid := []waiter{{"a", ago(60), false, 9}, {"a", ago(40), false, 2}, {"a", ago(50), false, 2}}
	for name, c := range map[string]struct {
		all   []waiter
		place string
		here  int
		want  int
	}{
		"nobody waits":                          {nil, "c", 0, -1},
		"the oldest of the largest":             {crowd, "c", 0, 2},
		"they are from there itself, and young": {crowd, "a", 3, -1},
		"it would have as many":                 {crowd, "c", 2, -1},
		"one each, and young":                   {[]waiter{{"a", ago(5), false, 0}, {"b", ago(6), false, 0}}, "c", 0, -1},
		"one each, and old":                     {[]waiter{{"a", ago(5), false, 0}, {"b", ago(31), false, 0}}, "c", 0, 1},
		"from there itself, and old":            {[]waiter{{"c", ago(5), false, 0}, {"c", ago(40), false, 0}}, "c", 2, 1},
		"the oldest of those that paid least":   {paid, "a", 3, 2},
		"from there itself, young and away":     {[]waiter{{"a", ago(6), false, 0}, {"a", ago(4), true, 5}, {"a", ago(5), false, 0}}, "a", 3, 1},
		"away, but not of the largest":          {append([]waiter{{"b", ago(4), true, 0}}, crowd...), "c", 0, 3},
	} {
		if got := leastMissed(c.all, c.place, c.here, ago(30)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// stander is a deal that has its place for held and in which no byte has moved since.
// It has been sent its first interval, of 1 MiB at 3 attoFIL each, and paid something.
func stander(id voucher.DealID, held time.Duration, paid uint64) *providerDeal {
	a := revalidator.Account{Terms: voucher.Terms{Price: 3, Interval: 1 << 20}, Moved: 1 << 20, Paid: voucher.Atto(paid)}
	then := time.Now().Add(-held)
	d := &providerDeal{key: ProviderDealID{"client", id}, inbox: newInbox(), since: then, moved: then, deal: Deal{Phase: Moving, Ready: true, Account: a}}
	d.view.account, d.view.moved = a, then
	return d
}

// TestPlaces: a deal that stands still keeps its place for as long as it has paid for
// it, whatever little it pays on top; one that paid next to nothing is like one that
// has paid nothing.
func TestPlaces(t *testing.T) {
	const interval = 3 << 20
	for name, c := range map[string]struct {
		held time.Duration
		paid uint64
		more uint64 // paid a moment ago
		goes bool
		away bool
	}{
		"paid nothing, a moment ago":              {2 * time.Second, 0, 0, false, false},
		"paid nothing, a moment ago, away":        {2 * time.Second, 0, 0, true, true},
		"paid for its place, away":                {50 * time.Second, interval, 0, false, true},
		"paid nothing":                            {6 * time.Second, 0, 0, true, false},
		"paid an attoFIL":                         {6 * time.Second, 1, 0, true, false},
		"paid another attoFIL":                    {6 * time.Second, 1, 2, true, false},
		"paid for its place":                      {50 * time.Second, interval, 0, false, false},
		"paid for a minute of two":                {2 * time.Minute, interval, 0, true, false},
		"paid for more than it was sent":          {2 * time.Minute, 3 * interval, 0, false, false},
		"paid late what was due":                  {20 * time.Minute, 0, interval, false, false},
		"paid late an attoFIL less than what was": {20 * time.Minute, 0, interval - 1, true, false},
	} {
		p, d := &Provider{cfg: ProviderConfig{UnpaidFor: time.Nanosecond}, away: func(peer.ID) bool { return c.away }}, stander(1, c.held, c.paid)
		p.asks, p.idle, d.p = newThrottle(50, 200), newThrottle(50, 200), p
		p.live = map[ProviderDealID]*providerDeal{d.key: d}
		d.handle(t.Context(), attachNote{}) // another channel changes nothing
		d.view.moved = d.moved
		asked := p.evict(func(*providerDeal) bool { return true }, "")
		if c.more != 0 {
			d.pays(voucher.Atto(c.more))
		}
		if d.makeRoom(); (d.deal.Phase == Failed) != c.goes || c.goes && !asked {
			t.Errorf("%s: asked %v, then %v", name, asked, d.deal.Phase)
		}
	}
}

// TestMakeRoomUnheard: a deal in whose inbox nothing fits any more makes room all the
// same.
func TestMakeRoomUnheard(t *testing.T) {
	p, d := &Provider{cfg: ProviderConfig{UnpaidFor: time.Nanosecond}, away: func(peer.ID) bool { return false }}, stander(1, time.Minute, 0)
	p.live = map[ProviderDealID]*providerDeal{d.key: d}
	for d.inbox.post(payNote{}) {
	}
	<-d.inbox.wake
	if !p.evict(func(*providerDeal) bool { return true }, "") {
		t.Fatal("there is no room")
	}
	if d.makeRoom(); len(d.inbox.wake) != 1 || d.deal.Phase != Failed {
		t.Error("there is room, and the deal keeps its place")
	}
}

// TestBegun: a client begins as many deals as have come to something, and besides only
// so many at once and so many a second, whether or not those have ended meanwhile. One
// that finds no place takes no turn, and the turns of one client are not another's.
func TestBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Provider{cfg: ProviderConfig{Host: near{}, MaxDeals: 1, MaxDealsPerPeer: 1}, begun: newThrottle(beginRate, beginBurst)}
		begins := func(client peer.ID, want int) {
			t.Helper()
			for n := range want + 1 {
				if err := p.room(client); (n == want) != errors.Is(err, voucher.RefusedBusy) { // the last one is gone by now
					t.Fatalf("%s has begun %d deals of %d: %v", client, n, want, err)
				}
			}
		}
		begins("crook", beginBurst)
		time.Sleep(10 * time.Second) // of the bubble's clock
		begins("crook", 10*beginRate)
		begins("another", beginBurst)
		p.begun.giveBack("crook") // one has come to something
		p.cfg.MaxDealsPerPeer = 0
		begins("crook", 0)
		p.cfg.MaxDealsPerPeer = 1
		begins("crook", 1)
	})
}

// TestCameToNothing: which deals count against what their client may begin, when they
// end, and when it has turned out what was sent behind the client's word that it wants
// no more.
func TestCameToNothing(t *testing.T) {
	terms := voucher.Terms{Price: 3, Interval: 1000}
	for name, c := range map[string]struct {
		terms voucher.Terms
		moved voucher.Bytes
		paid  uint64
		ended bool
		then  voucher.Bytes // what had moved when the channel was closed
		came  bool          // to something, at the end of the deal
		stays bool          // and after that
	}{
		"held everything":             {terms: terms, ended: true, came: true, stays: true},
		"wanted nothing, took it":     {terms: terms, ended: true, then: 1000, came: true},
		"ended before its end":        {terms: terms},
		"paid nothing":                {terms: terms, moved: 1000, then: 1000},
		"paid an attoFIL":             {terms: terms, moved: 1000, paid: 1, then: 1000},
		"paid an attoFIL for nothing": {terms: terms, paid: 1},
		"paid everything":             {terms: terms, moved: 1500, paid: 4500, ended: true, then: 1500, came: true, stays: true},
		"paid, and took an interval":  {terms: terms, moved: 1000, paid: 3000, ended: true, then: 2000, came: true, stays: true},
		"paid a root, took more":      {terms: terms, moved: 10, paid: 30, ended: true, then: 1000, came: true},
		"owes an interval of many":    {terms: terms, moved: 9000, paid: 24000, then: 9000, came: true, stays: true},
		"owes more than it paid":      {terms: terms, moved: 9000, paid: 13499, then: 9000},
		"free":                        {moved: 10, then: 10, came: true, stays: true},
		"free, held everything":       {ended: true, came: true, stays: true},
		"free, and never sent":        {},
	} {
		a := revalidator.Account{Terms: c.terms, Moved: c.moved, Paid: voucher.Atto(c.paid), Ended: c.ended}
		p := &Provider{begun: newThrottle(1e-9, 1)}
		p.streams = newProviderStreams(p)
		d := &providerDeal{p: p, key: ProviderDealID{"client", 1}, gone: make(chan struct{}), deal: Deal{Phase: Completed, Account: a}}
		d.view.account = a
		p.streams.sales[d.view.chid] = &sale{progress: Progress{Begun: true, Reached: uint64(c.then), Links: 1}}
		p.begun.take("client")
		d.leave()
		if got := p.begun.of("client").Tokens() > 0.5; got != c.came {
			t.Errorf("%s: it may begin another: %v", name, got)
		}
		d.tally()
		if got := p.begun.of("client").Tokens() > 0.5; got != c.stays {
			t.Errorf("%s: it may begin another after all: %v", name, got)
		}
	}
}

// TestTurnsEarned: a deal that is paid for turnBytes, however that is done, gives its
// client back one turn to ask and one to pay; what is paid below that, in however many
// payments, or is no price of bytes, gives none.
func TestTurnsEarned(t *testing.T) {
	const burst = 5
	atto := func(n ...uint64) []uint64 { return n }
	dust := make([]uint64, 1000)
	for i := range dust {
		dust[i] = uint64(i + 1)
	}
	terms := voucher.Terms{Price: 3, Interval: 1 << 20}
	for name, c := range map[string]struct {
		terms voucher.Terms
		paid  []uint64 // in all, payment by payment
		taken int      // of the turns, before
		want  int      // that are left
	}{
		"nothing":                     {terms, nil, burst, 0},
		"an attoFIL a thousand times": {terms, dust, burst, 0},
		"a byte too little":           {terms, atto(1, 3*turnBytes-1), burst, 0},
		"enough":                      {terms, atto(3 * turnBytes), burst, 1},
		"enough in the end":           {terms, atto(1, 3*turnBytes-1, 3*turnBytes), burst, 1},
		"the same again":              {terms, atto(3*turnBytes, 3*turnBytes, 3*turnBytes), burst, 1},
		"much more":                   {terms, atto(3*turnBytes, 3<<30, 3<<40), burst, 1},
		"enough, all turns are there": {terms, atto(3 * turnBytes), 0, burst},
		"unsealing, of free bytes":    {voucher.Terms{Unseal: voucher.Atto(1)}, atto(1), burst, 0},
		"unsealing, and an attoFIL":   {voucher.Terms{Unseal: voucher.Atto(1 << 40), Price: 3, Interval: 1 << 20}, atto(1<<40, 1<<40+1), burst, 0},
	} {
		p, d := &Provider{asks: newThrottle(1e-9, burst), idle: newThrottle(1e-9, burst)}, stander(1, 0, 0)
		d.p, d.deal.Account.Terms = p, c.terms
		for range c.taken {
			p.asks.take(d.key.From)
			p.idle.take(d.key.From)
		}
		for _, total := range c.paid {
			d.pays(voucher.Atto(total))
		}
		for kind, turns := range map[string]*throttle{"questions": p.asks, "payments": p.idle} {
			left := 0
			for turns.take(d.key.From) {
				left++
			}
			if left != c.want {
				t.Errorf("%s: %d %s may follow, want %d", name, left, kind, c.want)
			}
		}
	}
}

// TestProven: a client is no stranger when one of its deals is paid for turnBytes, each
// time that it pays or comes back, or has had one whole and owes nothing.
func TestProven(t *testing.T) {
	enough := voucher.Atto(3 * turnBytes)
	for name, c := range map[string]struct {
		change func(*providerDeal)
		does   func(*providerDeal)
		want   bool
	}{
		"pays too little":            {nil, func(d *providerDeal) { d.pays(voucher.Atto(3*turnBytes - 1)) }, false},
		"pays enough":                {nil, func(d *providerDeal) { d.pays(enough) }, true},
		"had paid, and pays":         {func(d *providerDeal) { d.deal.Account.Paid = enough }, func(d *providerDeal) { d.pays(voucher.Atto(9 * turnBytes)) }, true},
		"had paid, and pays no more": {func(d *providerDeal) { d.deal.Account.Paid = enough }, func(d *providerDeal) { d.pays(enough) }, false},
		"had paid, and comes back":   {func(d *providerDeal) { d.deal.Account.Paid = enough }, func(d *providerDeal) { d.handle(t.Context(), attachNote{}) }, true},
		"comes back without":         {nil, func(d *providerDeal) { d.handle(t.Context(), attachNote{}) }, false},
		"had nothing for nothing":    {func(d *providerDeal) { free(d, 0, true) }, (*providerDeal).leave, false},
		"had little for nothing":     {func(d *providerDeal) { free(d, 1, true) }, (*providerDeal).leave, true},
		"went before the end":        {func(d *providerDeal) { free(d, turnBytes, false) }, (*providerDeal).leave, false},
		"paid for unsealing only": {func(d *providerDeal) {
			free(d, turnBytes, true)
			d.deal.Account.Terms.Unseal, d.deal.Account.Paid = voucher.Atto(1), voucher.Atto(1)
		}, (*providerDeal).leave, true},
		"left what it had not paid": {nil, (*providerDeal).leave, false},
	} {
		var proven []peer.ID
		p, d := &Provider{cfg: ProviderConfig{Proven: func(p peer.ID) { proven = append(proven, p) }}}, stander(1, 0, 0)
		p.asks, p.idle, p.begun, d.p, d.gone = newThrottle(50, 200), newThrottle(50, 200), newThrottle(beginRate, beginBurst), p, make(chan struct{})
		if c.change != nil {
			c.change(d)
		}
		if c.does(d); (len(proven) == 1 && proven[0] == "client") != c.want || len(proven) > 1 {
			t.Errorf("%s: proven are %q", name, proven)
		}
	}
}

// free makes d one whose bytes cost nothing, and of which some have moved.
func free(d *providerDeal, moved voucher.Bytes, ended bool) {
	d.deal.Account.Terms, d.deal.Account.Moved, d.deal.Account.Ended = voucher.Terms{}, moved, ended
}
