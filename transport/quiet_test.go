package transport

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"pgregory.net/rapid"
)

// stockChannel is what data-transfer keeps of one channel, and decides by it.
type stockChannel struct {
	datatransfer.ChannelState
	mu     sync.Mutex
	limit  uint64
	status datatransfer.Status
	kinds  [3]stockCount
	events int // fired at the state machine
	pauses int
	ended  []uint64 // queued when the channel completed
}

type stockCount struct {
	cached int64 // index that progress is judged by
	index  int64 // index on record
	total  uint64
}

func (s *stockChannel) Status() datatransfer.Status { return s.status }
func (s *stockChannel) DataLimit() uint64           { return s.limit }
func (s *stockChannel) Queued() uint64              { return s.kinds[tallyQueued].total }
func (s *stockChannel) Sent() uint64                { return s.kinds[tallySent].total }
func (s *stockChannel) Received() uint64            { return s.kinds[tallyReceived].total }
func (s *stockChannel) QueuedCidsTotal() int64      { return s.kinds[tallyQueued].index }
func (s *stockChannel) SentCidsTotal() int64        { return s.kinds[tallySent].index }
func (s *stockChannel) ReceivedCidsTotal() int64    { return s.kinds[tallyReceived].index }

// progress is channels.fireProgressEvent.
func (s *stockChannel) progress(kind tallyKind, size uint64, index int64, unique bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &s.kinds[kind]
	s.events++
	pause := false
	if unique && index > k.cached {
		k.cached = index
		k.total += size
		s.events++
		pause = kind != tallySent && s.limit != 0 && k.total >= s.limit
	}
	k.index = max(k.index, index)
	if pause {
		s.pauses++
		return datatransfer.ErrPause
	}
	return nil
}

// stockManager is data-transfer's manager with one channel.
type stockManager struct {
	datatransfer.Manager
	datatransfer.EventsHandler
	channel *stockChannel
	restart func(*stockChannel) // what a restart request does
	fail    error               // of UpdateValidationStatus
}

func (m *stockManager) ChannelState(context.Context, datatransfer.ChannelID) (datatransfer.ChannelState, error) {
	m.channel.mu.Lock()
	defer m.channel.mu.Unlock()
	return &stockChannel{limit: m.channel.limit, status: m.channel.status, kinds: m.channel.kinds}, nil
}

func (m *stockManager) UpdateValidationStatus(_ context.Context, _ datatransfer.ChannelID, r datatransfer.ValidationResult) error {
	m.channel.mu.Lock()
	defer m.channel.mu.Unlock()
	m.channel.limit = r.DataLimit
	return m.fail
}

func (m *stockManager) OnDataQueued(_ datatransfer.ChannelID, _ ipld.Link, size uint64, index int64, unique bool) (datatransfer.Message, error) {
	return nil, m.channel.progress(tallyQueued, size, index, unique)
}

func (m *stockManager) OnDataSent(_ datatransfer.ChannelID, _ ipld.Link, size uint64, index int64, unique bool) error {
	return m.channel.progress(tallySent, size, index, unique)
}

func (m *stockManager) OnDataReceived(_ datatransfer.ChannelID, _ ipld.Link, size uint64, index int64, unique bool) error {
	return m.channel.progress(tallyReceived, size, index, unique)
}

func (m *stockManager) OnRequestReceived(datatransfer.ChannelID, datatransfer.Request) (datatransfer.Response, error) {
	if m.restart != nil {
		m.restart(m.channel)
	}
	return nil, nil
}

func (m *stockManager) OnChannelCompleted(datatransfer.ChannelID, error) error {
	m.channel.mu.Lock()
	defer m.channel.mu.Unlock()
	m.channel.ended = append(m.channel.ended, m.channel.kinds[tallyQueued].total)
	return nil
}

// fakeTransport keeps the handler that it is given.
type fakeTransport struct {
	datatransfer.PauseableTransport
	events datatransfer.EventsHandler
}

func (t *fakeTransport) SetEventHandler(h datatransfer.EventsHandler) error { t.events = h; return nil }

func (t *fakeTransport) CleanupChannel(datatransfer.ChannelID) {}

// restartRequest is a request that says no more than that it restarts.
type restartRequest struct{ datatransfer.Request }

func (restartRequest) IsNew() bool     { return false }
func (restartRequest) IsRestart() bool { return true }

// quietStack is a Quiet between a fake transport and a fake manager.
type quietStack struct {
	q         *Quiet
	stock     *stockManager
	events    datatransfer.EventsHandler // what the transport sees
	manager   datatransfer.Manager       // what the program sees
	transport datatransfer.PauseableTransport
}

func newQuietStack(t interface{ Fatal(...any) }, cfg QuietConfig, c *stockChannel) *quietStack {
	s := &quietStack{q: NewQuiet(cfg), stock: &stockManager{channel: c}}
	ft := &fakeTransport{}
	s.transport = s.q.Transport(ft)
	if err := s.transport.SetEventHandler(s.stock); err != nil {
		t.Fatal(err)
	}
	s.events, s.manager = ft.events, s.q.Manager(s.stock)
	return s
}

var quietChid = datatransfer.ChannelID{ID: 7, Initiator: "client", Responder: "provider"}

func (s *quietStack) block(kind tallyKind, size uint64, index int64, unique bool) error {
	switch kind {
	case tallyQueued:
		_, err := s.events.OnDataQueued(quietChid, nilLink, size, index, unique)
		return err
	case tallySent:
		return s.events.OnDataSent(quietChid, nilLink, size, index, unique)
	default:
		return s.events.OnDataReceived(quietChid, nilLink, size, index, unique)
	}
}

// nilLink stands for any link; nothing looks at it.
var nilLink ipld.Link = cidlink.Link{}

// never is a time that no test lasts.
const never = time.Hour

// TestQuietDecidesAsStock: whatever blocks come, limits are set, and restarts
// go back, every block is answered as data-transfer alone would answer it, and
// in the end its record is the same.
func TestQuietDecidesAsStock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := stockChannel{status: datatransfer.Ongoing, limit: rapid.Uint64Range(0, 3000).Draw(t, "limit")}
		for k := range start.kinds {
			at := rapid.Int64Range(0, 5).Draw(t, "index on record")
			start.kinds[k] = stockCount{cached: at, index: at, total: uint64(at) * 100}
		}
		plain := &stockManager{channel: &stockChannel{status: start.status, limit: start.limit, kinds: start.kinds}}
		quiet := newQuietStack(t, QuietConfig{
			Bytes: rapid.Uint64Range(1, 2000).Draw(t, "quantum"), Blocks: rapid.IntRange(1, 10).Draw(t, "blocks"), Delay: never, Idle: never, Grace: -1,
		}, &stockChannel{status: start.status, limit: start.limit, kinds: start.kinds})
		defer quiet.q.Close()
		next := [3]int64{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			quietStep(t, plain, quiet, &next)
		}
		_ = quiet.events.OnChannelCompleted(quietChid, nil)
		if got, want := quiet.stock.channel.kinds, plain.channel.kinds; got != want {
			t.Fatalf("record %+v, without quiet %+v", got, want)
		}
		if quiet.stock.channel.pauses != plain.channel.pauses || quiet.stock.channel.events > plain.channel.events {
			t.Fatalf("%d pauses, %d events, without quiet %d and %d", quiet.stock.channel.pauses, quiet.stock.channel.events, plain.channel.pauses, plain.channel.events)
		}
	})
}

// quietStep does one thing to both.
func quietStep(t *rapid.T, plain *stockManager, quiet *quietStack, next *[3]int64) {
	ctx := context.Background()
	switch rapid.IntRange(0, 9).Draw(t, "step") {
	case 0: // a limit, higher or lower
		r := datatransfer.ValidationResult{Accepted: true, DataLimit: rapid.Uint64Range(0, 6000).Draw(t, "new limit")}
		fail := error(nil)
		if rapid.Bool().Draw(t, "said in vain") {
			fail = errors.New("not sent")
		}
		plain.fail, quiet.stock.fail = fail, fail
		_ = plain.UpdateValidationStatus(ctx, quietChid, r)
		_ = quiet.manager.UpdateValidationStatus(ctx, quietChid, r)
	case 1: // a restart: the peer goes back, and the limit may change
		limit := rapid.Uint64Range(0, 6000).Draw(t, "limit of the restart")
		quiet.stock.restart = func(c *stockChannel) { c.limit = limit }
		plain.channel.limit = limit
		_, _ = quiet.events.OnRequestReceived(quietChid, restartRequest{})
		for k := range next {
			next[k] = rapid.Int64Range(0, next[k]).Draw(t, "from")
		}
	case 2:
		quiet.q.flush(quietChid)
	default:
		kind := tallyKind(rapid.IntRange(0, 2).Draw(t, "kind"))
		size, unique := rapid.Uint64Range(0, 400).Draw(t, "size"), kind != tallyReceived || rapid.IntRange(0, 3).Draw(t, "dup") > 0
		next[kind] += rapid.Int64Range(1, 3).Draw(t, "links on")
		want := plain.channel.progress(kind, size, next[kind], unique)
		if got := quiet.block(kind, size, next[kind], unique); got != want {
			t.Fatalf("%v answered to block %d, without quiet %v", got, next[kind], want)
		}
	}
}

// TestQuietTimers: what is gathered is told soon after the blocks stop.
func TestQuietTimers(t *testing.T) {
	c := &stockChannel{status: datatransfer.Ongoing}
	s := newQuietStack(t, QuietConfig{Idle: time.Millisecond}, c)
	for i := range int64(5) {
		if err := s.block(tallyReceived, 10, i+1, true); err != nil {
			t.Fatal(err)
		}
	}
	s.q.Close() // waits for the timer, or does its work
	if c.Received() != 50 || c.ReceivedCidsTotal() != 5 {
		t.Errorf("%d bytes to index %d told", c.Received(), c.ReceivedCidsTotal())
	}
	if err := s.block(tallyReceived, 10, 6, true); err != nil || c.Received() != 60 {
		t.Errorf("after Close: %v, %d bytes", err, c.Received())
	}
}

// TestQuietFirstBlock: the first block of a channel is news by itself.
func TestQuietFirstBlock(t *testing.T) {
	c := &stockChannel{status: datatransfer.Ongoing}
	s := newQuietStack(t, QuietConfig{Delay: never, Idle: never}, c)
	defer s.q.Close()
	_ = s.block(tallyReceived, 10, 1, true)
	_ = s.block(tallyReceived, 10, 2, true)
	if c.Received() != 10 {
		t.Errorf("%d bytes told", c.Received())
	}
}

// TestQuietEnough: so many bytes of each kind are gathered, and then told.
func TestQuietEnough(t *testing.T) {
	const want = 64 << 20
	for _, kind := range []tallyKind{tallyReceived, tallyQueued, tallySent} {
		c := &stockChannel{status: datatransfer.Ongoing}
		s := newQuietStack(t, QuietConfig{Delay: never, Idle: never}, c)
		const size = 1 << 20
		_ = s.block(kind, size, 1, true) // told at once
		told := c.kinds[kind].total
		index := int64(1)
		for ; c.kinds[kind].total == told && index < 100; index++ {
			_ = s.block(kind, size, index+1, true)
		}
		if got := c.kinds[kind].total - told; got != want {
			t.Errorf("kind %d: told of %d bytes at once, not of %d", kind, got, want)
		}
		s.q.Close()
	}
}

// TestQuietForgets: a channel that is over, or was never there, leaves nothing.
func TestQuietForgets(t *testing.T) {
	c := &stockChannel{status: datatransfer.Ongoing}
	s := newQuietStack(t, QuietConfig{}, c)
	defer s.q.Close()
	_ = s.block(tallyQueued, 10, 1, true)
	s.transport.CleanupChannel(quietChid)
	c.status = datatransfer.Completed
	_ = s.block(tallySent, 10, 1, true) // late
	if c.Sent() != 10 {
		t.Errorf("%d bytes told as sent", c.Sent())
	}
	s.stock.fail = datatransfer.ErrChannelNotFound
	if err := s.manager.UpdateValidationStatus(t.Context(), quietChid, datatransfer.ValidationResult{Accepted: true}); !errors.Is(err, datatransfer.ErrChannelNotFound) {
		t.Error(err)
	}
	if n := len(s.q.channels); n != 0 {
		t.Errorf("%d channels remembered", n)
	}
}

// TestQuietNeedsManager: a handler that knows no channels cannot be made quiet.
func TestQuietNeedsManager(t *testing.T) {
	err := NewQuiet(QuietConfig{}).Transport(&fakeTransport{}).SetEventHandler(struct{ datatransfer.EventsHandler }{})
	if !errors.Is(err, ErrNotQuiet) {
		t.Error(err)
	}
}

// TestQuietConcurrently raises limits while blocks are queued and sent, and
// loses none.
func TestQuietConcurrently(t *testing.T) {
	const blocks, size, step = 20_000, 100, 5_000
	c := &stockChannel{status: datatransfer.Ongoing, limit: step}
	s := newQuietStack(t, QuietConfig{Bytes: 3_000, Idle: 50 * time.Microsecond, Delay: time.Millisecond, Grace: -1}, c)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range int64(blocks) {
			_ = s.block(tallySent, size, i+1, true)
		}
	})
	limit := uint64(step)
	for i := range uint64(blocks) {
		paused := s.block(tallyQueued, size, int64(i)+1, true) != nil
		if want := (i+1)*size >= limit; paused != want {
			t.Fatalf("block %d: paused %v at a limit of %d", i, paused, limit)
		}
		if paused || i%37 == 0 {
			limit = (i+1)*size/step*step + step
			if err := s.manager.UpdateValidationStatus(t.Context(), quietChid, datatransfer.ValidationResult{Accepted: true, DataLimit: limit}); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	s.q.Close()
	if c.Queued() != blocks*size || c.Sent() != blocks*size {
		t.Errorf("%d queued, %d sent of %d", c.Queued(), c.Sent(), blocks*size)
	}
}

func BenchmarkQuietBlock(b *testing.B) {
	c := &stockChannel{status: datatransfer.Ongoing}
	s := newQuietStack(b, QuietConfig{}, c)
	defer s.q.Close()
	b.ReportAllocs()
	index := int64(0)
	for b.Loop() {
		index++
		_ = s.block(tallyQueued, 256<<10, index, true)
	}
	b.ReportMetric(float64(c.events)/float64(index), "events/block")
}

// TestQuietSlow: a channel in which a block moves now and then costs data-transfer
// little all the same.
func TestQuietSlow(t *testing.T) {
	for _, kind := range []tallyKind{tallyQueued, tallySent, tallyReceived} {
		synctest.Test(t, func(t *testing.T) {
			c := &stockChannel{status: datatransfer.Ongoing}
			q := newQuietStack(t, QuietConfig{}, c)
			for i := range int64(100) {
				if err := q.block(kind, 256<<10, i+1, true); err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond) // of the bubble's clock
			}
			q.q.Close()
			if c.events > 20 || c.kinds[kind].total != 100*256<<10 {
				t.Errorf("kind %d: %d events for 100 blocks, %d bytes on record", kind, c.events, c.kinds[kind].total)
			}
		})
	}
}
