package retrievalmarket

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/voucher"
)

// payDesk is the provider's end of one payment stream. It is owned by the
// goroutine that serves the stream.
type payDesk struct {
	p    *Provider
	s    network.Stream
	from peer.ID
	news bool // the last frame took its deal further
}

// servePayments answers one payment stream, frame by frame, in order. A stream, and
// each frame behind one that took no deal further, waits for its peer's turn.
func (p *Provider) servePayments(s network.Stream) {
	defer func() {
		if r := recover(); r != nil {
			p.log.Error("payment stream panicked", "err", r)
			_ = s.Reset() // the peer sees a broken stream and comes again
		}
	}()
	p.mu.Lock()
	ctx := p.ctx
	p.mu.Unlock()
	k, r := &payDesk{p: p, s: s, from: s.Conn().RemotePeer()}, bufio.NewReaderSize(s, readAhead)
	for {
		if k.turn(ctx) != nil {
			_ = s.Close() // the node stops
			return
		}
		if err := s.SetReadDeadline(time.Now().Add(payIdle)); err != nil {
			_ = s.Reset() // no deadline, no service
			return
		}
		frames, end := readPayFrames(r)
		if err := k.answerAll(ctx, frames); err != nil {
			_ = s.Reset() // the peer asks again on another stream
			return
		}
		if end != nil {
			_ = s.Close() // the peer is done, or talks nonsense; it sees the end
			return
		}
	}
}

// turn waits for the peer's turn unless its last frame took its deal further.
func (k *payDesk) turn(ctx context.Context) error {
	if k.news {
		return nil
	}
	return k.p.idle.wait(ctx, k.from)
}

// readAhead bounds the frames that wait to be answered together, in bytes.
const readAhead = 4 << 10

// asked is a frame that came on a payment stream, or why it is none.
type asked struct {
	frame payFrame
	err   error
}

// readPayFrames waits for a frame and returns it with those behind it that have
// arrived, also if the stream ends behind them.
func readPayFrames(r *bufio.Reader) ([]asked, error) {
	var frames []asked
	for len(frames) == 0 || wholeFrame(r) {
		n, err := readFrame(r)
		if err != nil {
			return frames, err
		}
		f, err := parsePayFrame(n)
		frames = append(frames, asked{f, err})
	}
	return frames, nil
}

// wholeFrame reports whether a frame can be read without waiting.
func wholeFrame(r *bufio.Reader) bool {
	head, _ := r.Peek(min(r.Buffered(), binary.MaxVarintLen64))
	size, n := binary.Uvarint(head)
	return n > 0 && size <= uint64(r.Buffered()-n)
}

// answerAll answers frames, each, in order. Of payments for one deal that wait only
// the last is booked, since payments are cumulative; if it is refused, each
// is looked at. It begins in the peer's turn.
func (k *payDesk) answerAll(ctx context.Context, frames []asked) error {
	for i := 0; len(frames) > 0; i++ {
		if i > 0 {
			if err := k.turn(ctx); err != nil {
				return err
			}
		}
		n := mergeable(frames)
		ack := k.answer(frames[n-1])
		if ack.refused != 0 && n > 1 {
			if err := k.turn(ctx); err != nil {
				return err
			}
			n, ack = 1, k.answer(frames[0])
		}
		_ = k.s.SetWriteDeadline(time.Now().Add(payTimeout)) // a failure shows in the write
		for range n {
			node, err := ack.node()
			if err := writeFrame(k.s, node, err); err != nil {
				return err
			}
		}
		frames = frames[n:]
	}
	return nil
}

// mergeable is how many frames, from the first on, are payments for one deal. What
// says that the client wants no more is the last.
func mergeable(frames []asked) int {
	n := 1
	for n < len(frames) && frames[n-1].merges(frames[n]) {
		n++
	}
	return n
}

// merges reports whether next makes a superfluous.
func (a asked) merges(next asked) bool {
	return a.err == nil && next.err == nil && a.frame.id == next.frame.id &&
		a.frame.payment != nil && next.frame.payment != nil && !a.frame.done
}

// answer is the answer to one frame.
func (k *payDesk) answer(a asked) ackFrame {
	ack := ackFrame{id: a.frame.id, refused: voucher.RefusedPayment}
	if a.err != nil {
		ack.message = a.err.Error()
	} else {
		ack = k.p.pay(ProviderDealID{k.from, a.frame.id}, a.frame)
	}
	k.news = ack.news
	return ack
}

// pay hands a frame to its deal and waits for the answer. A deal that is over
// answers from disk.
func (p *Provider) pay(key ProviderDealID, frame payFrame) ackFrame {
	p.mu.Lock()
	d, ctx := p.live[key], p.ctx
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, payTimeout)
	defer cancel()
	if d != nil {
		note := payNote{frame, make(chan ackFrame, 1)}
		if !d.inbox.post(note) {
			return ackFrame{id: key.ID, refused: voucher.RefusedBusy, message: "too many payments wait"}
		}
		select {
		case ack := <-note.reply:
			return ack
		case <-ctx.Done():
			return ackFrame{id: key.ID, refused: voucher.RefusedBusy, message: "no answer in time"}
		case <-d.gone:
		}
	}
	return p.payLate(ctx, key, frame)
}

// payLate answers for a deal that is not live.
func (p *Provider) payLate(ctx context.Context, key ProviderDealID, frame payFrame) ackFrame {
	r, err := p.book.last(ctx, key)
	if r.Phase == Moving || r.Phase == Settling { // its goroutine stopped with the provider
		return ackFrame{id: key.ID, refused: voucher.RefusedBusy, message: "shutting down"}
	}
	if errors.Is(err, ErrNoDeal) {
		return noSuchDeal(key, frame)
	}
	if ctx.Err() != nil {
		return ackFrame{id: key.ID, refused: voucher.RefusedBusy, message: "shutting down"}
	}
	if err != nil {
		p.log.Error("late payment", "err", err)
		return ackFrame{id: key.ID, refused: voucher.RefusedInternal, message: "deal not readable"}
	}
	ack := ackFrame{id: key.ID, paid: r.Paid, settled: r.Phase == Completed, message: r.Message}
	if r.Phase == Failed {
		ack.refused = voucher.RefusedResume
	}
	return ack
}

// noSuchDeal answers for a deal that is not on record. Where the provider
// crashed as the deal began the client proposes it again on its next channel,
// and its payment may come before that: it is to be sent again. One that wants
// no more will not.
func noSuchDeal(key ProviderDealID, frame payFrame) ackFrame {
	ack := ackFrame{id: key.ID, refused: voucher.RefusedBusy, message: "no such deal yet: propose it first"}
	if frame.done || frame.payment == nil {
		ack.refused, ack.message = voucher.RefusedResume, "no such deal"
	}
	return ack
}
