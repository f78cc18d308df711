package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// writePiece is how much is written at a time, in bytes, a look at the clock before
// each. It is what fits a frame of yamux beside the frame's head, and such a frame
// fills four TLS records: one byte more would go in a frame, a record and two
// system calls of its own.
const writePiece = 64<<10 - 12

// outbound is what sending one message needs; outbounds are reused.
type outbound struct {
	enc messageEncoder
	buf pieceWriter
}

var outbounds = sync.Pool{New: func() any {
	return &outbound{buf: pieceWriter{buf: make([]byte, 0, writePiece)}}
}}

func (n *fastNetwork) NewMessageSender(ctx context.Context, p peer.ID, opts gsnet.MessageSenderOpts) (gsnet.MessageSender, error) {
	s, doubt, err := openEagerly(ctx, n.host, p, n.cfg.Protocols)
	if err != nil {
		return nil, err
	}
	stall := opts.SendTimeout
	if stall <= 0 {
		stall = n.cfg.StallTimeout
	}
	return &fastSender{net: n, s: s, stall: stall, doubt: doubt && !n.speaks(p)}, nil
}

func (n *fastNetwork) SendMessage(ctx context.Context, p peer.ID, m gsmsg.GraphSyncMessage) error {
	sender, err := n.NewMessageSender(ctx, p, gsnet.MessageSenderOpts{})
	if err != nil {
		return err
	}
	if err := sender.SendMsg(ctx, m); err != nil {
		_ = sender.Reset() // what was written is half a message
		return err
	}
	return sender.Close()
}

// fastSender writes messages to one stream, one at a time.
type fastSender struct {
	net   *fastNetwork
	s     network.Stream
	stall time.Duration
	doubt bool      // the peer may not speak the protocol; owned by whoever sends
	last  time.Time // when the last message with blocks was sent; owned by whoever sends
}

// firstPart is about how large the parts of a message are, in bytes, that begins
// a transfer: its first block is not to wait for those behind it while the
// windows of a new stream open.
const firstPart = 64 << 10

// rested is how long after the last block another begins a transfer.
const rested = 500 * time.Millisecond

func (f *fastSender) Close() error { return f.s.Close() }
func (f *fastSender) Reset() error { return f.s.Reset() }

// SendMsg returns when the stream has taken all of m, as several messages if
// it is too large for one. It fails if the stream takes nothing for the send
// timeout, or when ctx ends. The first message to a stranger counts as sent when
// the peer has taken the protocol. After an error the stream is of no use and must
// be reset.
func (f *fastSender) SendMsg(ctx context.Context, m gsmsg.GraphSyncMessage) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = f.net.recovered(r)
		}
	}()
	if err := ctx.Err(); err != nil {
		return err
	}
	out := outbounds.Get().(*outbound)
	defer outbounds.Put(out)
	stop := context.AfterFunc(ctx, func() { _ = f.s.Reset() })
	defer stop()
	if err := f.sendParts(out, m); err != nil {
		return err
	}
	if f.doubt {
		if err := confirm(f.s, f.stall); err != nil {
			return fmt.Errorf("%s does not take graphsync messages: %w", f.s.Conn().RemotePeer(), err)
		}
		f.doubt = false
	}
	return nil
}

// sendParts sends m as one message where it can.
func (f *fastSender) sendParts(out *outbound, m gsmsg.GraphSyncMessage) error {
	if n := len(m.Blocks()); n > 0 {
		now := time.Now()
		begins := now.Sub(f.last) > rested
		if f.last = now; begins && n > 1 {
			return f.sendAll(out, splitMessage(m, firstPart))
		}
	}
	err := f.send(out, m)
	if !errors.Is(err, ErrMessageLimit) {
		return err
	}
	if parts := splitMessage(m, f.net.cfg.MaxMessageSize/2); len(parts) > 1 {
		return f.sendAll(out, parts)
	}
	return err
}

func (f *fastSender) sendAll(out *outbound, parts []gsmsg.GraphSyncMessage) error {
	for _, part := range parts {
		if err := f.send(out, part); err != nil {
			return err
		}
	}
	return nil
}

// send writes m, or nothing and ErrMessageLimit if m is too large.
func (f *fastSender) send(out *outbound, m gsmsg.GraphSyncMessage) error {
	blks := m.Blocks()
	if _, err := out.enc.encode(m, blks, f.net.cfg.MaxMessageSize); err != nil {
		return err
	}
	out.buf.reset(&progressWriter{s: f.s, stall: f.stall})
	defer out.buf.reset(nil)
	err := out.enc.write(&out.buf, blks)
	if err == nil {
		err = out.buf.flush()
	}
	if err != nil {
		return fmt.Errorf("send graphsync message to %s: %w", f.s.Conn().RemotePeer(), err)
	}
	return nil
}

// recovered turns a panic into an error.
func (n *fastNetwork) recovered(value any) error {
	if n.cfg.OnPanic != nil {
		n.cfg.OnPanic(value, string(debug.Stack()))
	}
	return fmt.Errorf("panic in graphsync network: %v", value)
}

// pieceWriter cuts what is written to it into pieces of writePiece bytes; only
// the last before a flush is shorter. What fills a piece alone is not copied. It is
// of no use after an error.
type pieceWriter struct {
	w   io.Writer
	buf []byte // less than a piece; its capacity is a piece
}

// reset drops what was not flushed and makes p write to w.
func (p *pieceWriter) reset(w io.Writer) { p.w, p.buf = w, p.buf[:0] }

func (p *pieceWriter) Write(b []byte) (total int, err error) {
	for total < len(b) {
		rest := b[total:]
		if len(p.buf) == 0 && len(rest) >= writePiece {
			n, err := p.w.Write(rest[:len(rest)/writePiece*writePiece])
			if total += n; err != nil {
				return total, err
			}
			continue
		}
		n := min(len(rest), writePiece-len(p.buf))
		p.buf = append(p.buf, rest[:n]...)
		if total += n; len(p.buf) == writePiece {
			if err := p.flush(); err != nil {
				return total, err
			}
		}
	}
	return total, nil
}

// flush writes what is left.
func (p *pieceWriter) flush() error {
	if len(p.buf) == 0 {
		return nil
	}
	_, err := p.w.Write(p.buf)
	p.buf = p.buf[:0]
	return err
}

// progressWriter writes in pieces and moves the deadline before each, but not
// more often than four times per timeout, because that costs a timer.
type progressWriter struct {
	s     network.Stream
	stall time.Duration
	set   time.Time // when the deadline was last moved
}

func (w *progressWriter) Write(p []byte) (total int, err error) {
	for len(p) > 0 {
		if now := time.Now(); now.Sub(w.set) > w.stall/4 {
			_ = w.s.SetWriteDeadline(now.Add(w.stall)) // some streams have none
			w.set = now
		}
		n, err := w.s.Write(p[:min(len(p), writePiece)])
		total += n
		p = p[n:]
		if err != nil && (n == 0 || !isTimeout(err)) {
			return total, err
		}
		if err != nil {
			w.set = time.Time{} // too slow for one deadline, but it moves
		}
	}
	return total, nil
}
