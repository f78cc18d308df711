package transport

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// sinkNet takes every message at once.
type sinkNet struct {
	gsnet.GraphSyncNetwork
	mu   sync.Mutex
	sent map[peer.ID]int // messages
}

func (s *sinkNet) SendMessage(_ context.Context, p peer.ID, _ gsmsg.GraphSyncMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[p]++
	return nil
}

func (s *sinkNet) NewMessageSender(_ context.Context, p peer.ID, _ gsnet.MessageSenderOpts) (gsnet.MessageSender, error) {
	return &sinkSender{s, p}, nil
}

type sinkSender struct {
	net *sinkNet
	to  peer.ID
}

func (s *sinkSender) SendMsg(ctx context.Context, m gsmsg.GraphSyncMessage) error {
	return s.net.SendMessage(ctx, s.to, m)
}
func (*sinkSender) Close() error { return nil }
func (*sinkSender) Reset() error { return nil }

func blockMessage(size int) gsmsg.GraphSyncMessage {
	b := blocks.NewBlock(make([]byte, size))
	return gsmsg.NewMessage(nil, nil, map[cid.Cid]blocks.Block{b.Cid(): b})
}

// TestEgress checks how long messages take under limits, on a clock of the
// test's own.
func TestEgress(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		cfg   EgressConfig
		peers []peer.ID
		want  time.Duration // for 4 MiB to each peer, the burst of 256 KiB aside
	}{
		"none":           {EgressConfig{}, []peer.ID{"a", "b"}, 0},
		"per peer":       {EgressConfig{PerPeer: mib}, []peer.ID{"a", "b"}, 3750 * time.Millisecond},
		"total":          {EgressConfig{Total: mib}, []peer.ID{"a", "b"}, 7750 * time.Millisecond},
		"total, one":     {EgressConfig{Total: mib}, []peer.ID{"a"}, 3750 * time.Millisecond},
		"the lower wins": {EgressConfig{Total: 4 * mib, PerPeer: 2 * mib}, []peer.ID{"a"}, 1875 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := &sinkNet{sent: make(map[peer.ID]int)}
				net := WrapEgress(sink, c.cfg)
				start := time.Now()
				var all sync.WaitGroup
				for _, p := range c.peers {
					s, err := net.NewMessageSender(t.Context(), p, gsnet.MessageSenderOpts{})
					if err != nil {
						t.Fatal(err)
					}
					all.Go(func() {
						for range 8 {
							if err := s.SendMsg(t.Context(), blockMessage(mib/2)); err != nil {
								t.Error(err)
							}
						}
					})
				}
				all.Wait()
				if got := time.Since(start); got < c.want-time.Millisecond || got > c.want+50*time.Millisecond {
					t.Errorf("took %v, want %v", got, c.want)
				}
				for _, p := range c.peers {
					if sink.sent[p] != 8 {
						t.Errorf("%d messages to %s", sink.sent[p], p)
					}
				}
			})
		})
	}
}

// TestEgressTurns checks that a peer that may not send does not hold up one
// that may, that messages without blocks pass, and that waiting ends with its
// context.
func TestEgressTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &sinkNet{sent: make(map[peer.ID]int)}
		net := WrapEgress(sink, EgressConfig{PerPeer: 64 << 10})
		ctx, cancel := context.WithCancel(t.Context())
		blocked := make(chan error, 1)
		go func() { blocked <- net.SendMessage(ctx, "slow", blockMessage(4<<20)) }()
		synctest.Wait()
		start := time.Now()
		if err := net.SendMessage(ctx, "other", blockMessage(128<<10)); err != nil {
			t.Error(err)
		}
		if err := net.SendMessage(ctx, "slow", gsmsg.NewMessage(nil, nil, nil)); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("they waited %v", took)
		}
		cancel()
		if err := <-blocked; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		if sink.sent["slow"] != 1 || sink.sent["other"] != 1 {
			t.Errorf("sent %v", sink.sent)
		}
	})
}
