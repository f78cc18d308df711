package transport

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// lineStub is a network whose streams write down what they carry, until they are
// told to break.
type lineStub struct {
	netStub
	lines []*line
}

func (s *lineStub) NewMessageSender(context.Context, peer.ID, gsnet.MessageSenderOpts) (gsnet.MessageSender, error) {
	l := &line{}
	s.lines = append(s.lines, l)
	return l, nil
}

type line struct {
	broken bool
	stall  time.Duration // before it fails
	sent   []gsmsg.GraphSyncMessage
}

func (l *line) SendMsg(_ context.Context, m gsmsg.GraphSyncMessage) error {
	if l.broken {
		time.Sleep(l.stall)
		return errors.New("stream reset")
	}
	l.sent = append(l.sent, m)
	return nil
}
func (l *line) Close() error { return nil }
func (l *line) Reset() error { return nil }

// senders is a guarded network with requests of a peer in it, and streams to the
// peer.
type senders struct {
	t    *testing.T
	stub *lineStub
	net  *GuardedNetwork
	ids  []graphsync.RequestID
	blks []blocks.Block
}

func newSenders(t *testing.T, requests int) *senders {
	t.Helper()
	s := &senders{t: t, stub: &lineStub{}}
	s.net = WrapNetwork(s.stub, NetworkGuard{Logger: quiet()})
	s.net.SetDelegate(s.stub)
	root := buildDAG(t, newMemStore(), 1, 1, 10, nil).root
	for i := range requests {
		r := newRequest(root, wholeDAG())
		s.stub.delegate.ReceiveMessage(t.Context(), "p", requestsMessage(r))
		s.ids = append(s.ids, r.ID())
		s.blks = append(s.blks, blocks.NewBlock([]byte{byte(i)}))
	}
	return s
}

func (s *senders) open() gsnet.MessageSender {
	s.t.Helper()
	out, err := s.net.NewMessageSender(s.t.Context(), "p", gsnet.MessageSenderOpts{})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// part is a message with a block for each of some requests.
func (s *senders) part(requests ...int) gsmsg.GraphSyncMessage {
	resps, blks := make(map[graphsync.RequestID]gsmsg.GraphSyncResponse), make(map[cid.Cid]blocks.Block)
	for _, i := range requests {
		c := s.blks[i].Cid()
		blks[c] = s.blks[i]
		resps[s.ids[i]] = gsmsg.NewResponse(s.ids[i], graphsync.PartialResponse,
			[]gsmsg.GraphSyncLinkMetadatum{{Link: c, Action: graphsync.LinkActionPresent}})
	}
	return gsmsg.NewMessage(nil, resps, blks)
}

// carried says which requests the messages of a stream were for, and that they
// held the blocks of these and no others.
func (s *senders) carried(stream int) (requests []int) {
	s.t.Helper()
	for _, m := range s.stub.lines[stream].sent {
		held := len(m.Blocks())
		for _, r := range m.Responses() {
			requests = append(requests, slices.Index(s.ids, r.RequestID()))
			held--
		}
		if held != 0 {
			s.t.Errorf("stream %d carried a message with %d blocks for %d responses", stream, len(m.Blocks()), len(m.Responses()))
		}
	}
	slices.Sort(requests)
	return requests
}

// TestNoGap: what follows a part that may have been lost is not sent.
func TestNoGap(t *testing.T) {
	for name, c := range map[string]struct {
		idle, stall time.Duration
		end         func(*senders, gsnet.MessageSender) error
		want        []int // of parts for requests 0, 1 and 2 on the next stream, where 1 had none on the first
	}{
		"send fails":              {end: func(s *senders, m gsnet.MessageSender) error { return m.SendMsg(s.t.Context(), s.part(1)) }, want: []int{1}},
		"send fails after a time": {stall: time.Minute, end: func(s *senders, m gsnet.MessageSender) error { return m.SendMsg(s.t.Context(), s.part(1)) }, want: []int{1}},
		"reset":                   {end: func(_ *senders, m gsnet.MessageSender) error { return errors.Join(m.Reset(), errors.New("reset")) }, want: []int{1}},
		"closed":                  {end: func(_ *senders, m gsnet.MessageSender) error { return errors.Join(m.Close(), errors.New("closed")) }, want: []int{1}},
		"idle before":             {idle: arrived, end: func(s *senders, m gsnet.MessageSender) error { return m.SendMsg(s.t.Context(), s.part(0)) }, want: []int{0, 1, 2}},
		"idle before it closed":   {idle: arrived, end: func(_ *senders, m gsnet.MessageSender) error { return errors.Join(m.Close(), errors.New("closed")) }, want: []int{0, 1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSenders(t, 3)
				one := s.open()
				if err := one.SendMsg(t.Context(), s.part(0, 2)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(c.idle)
				s.stub.lines[0].broken, s.stub.lines[0].stall = true, c.stall
				if c.end(s, one) == nil {
					t.Error("the broken stream took a message")
				}
				two := s.open()
				if err := two.SendMsg(t.Context(), s.part(0, 1, 2)); err != nil {
					t.Error(err)
				}
				if got := s.carried(1); !slices.Equal(got, c.want) {
					t.Errorf("carried %v, want %v", got, c.want)
				}
				if err := two.SendMsg(t.Context(), s.part(0)); err != nil {
					t.Errorf("a message of which nothing may be sent: %v", err)
				}
			})
		})
	}
}

// TestNoGapOfWhatEnded: a response that was complete is not called broken, and a
// new request with its id is served.
func TestNoGapOfWhatEnded(t *testing.T) {
	s := newSenders(t, 1)
	one := s.open()
	if err := one.SendMsg(t.Context(), s.part(0)); err != nil {
		t.Fatal(err)
	}
	s.net.forget("p", s.ids[0])
	_ = one.Reset()
	two := s.open()
	if err := two.SendMsg(t.Context(), s.part(0)); err != nil {
		t.Fatal(err)
	}
	if got := s.carried(1); len(got) != 1 {
		t.Errorf("carried %v", got)
	}
}
