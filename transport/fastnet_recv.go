package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-varint"
)

// readStep is how much memory a message gets before more of it has arrived, in
// bytes. Messages are cut at 512 KiB of blocks or after one block, so nearly
// all are read in one step.
const readStep = 1<<20 + 64<<10

// inlineBelow is the size of a message, in bytes, that is not worth a goroutine.
const inlineBelow = 16 << 10

// inbound is a message on its way from the stream to the receiver.
type inbound struct {
	done   chan struct{} // closed when the rest is set; nil if it is
	buf    *buffer       // what msg was received into
	msg    gsmsg.GraphSyncMessage
	wanted int // block bytes that graphsync will queue
	err    error
}

// handleStream reads one stream until it ends. Three things go on at a time:
// this goroutine reads, one goroutine per message hashes, and one delivers in
// order. slots bounds the messages between them.
func (n *fastNetwork) handleStream(s network.Stream) {
	p := s.Conn().RemotePeer()
	if !n.enter(p) {
		_ = s.Reset()
		return
	}
	defer n.leave(p)
	slots := make(chan struct{}, n.cfg.ReadAhead+1)
	queue := make(chan *inbound, n.cfg.ReadAhead+1)
	delivered := make(chan error, 1)
	go func() { delivered <- n.deliver(s, p, queue, slots) }()

	readErr := n.readMessages(s, queue, slots)
	close(queue)
	err := <-delivered
	if err == nil {
		err = readErr
	}
	if err == io.EOF {
		_ = s.Close()
		return
	}
	_ = s.Reset()
	if !errors.Is(err, errIdle) {
		n.receiver.ReceiveError(p, err)
	}
}

// readMessages reads messages into queue until the stream ends, and returns
// io.EOF if it ended between two of them.
func (n *fastNetwork) readMessages(s network.Stream, queue chan<- *inbound, slots chan<- struct{}) error {
	r := newFrameReader(s, n.cfg, &n.buffers)
	for {
		slots <- struct{}{} // the deliverer frees one for each message, also after an error
		buf, err := r.next()
		if err != nil {
			return err
		}
		in := &inbound{buf: buf}
		if len(buf.bytes) < inlineBelow {
			n.decode(in)
		} else {
			in.done = make(chan struct{})
			go func() {
				defer close(in.done)
				n.decode(in)
			}()
		}
		queue <- in
	}
}

func (n *fastNetwork) decode(in *inbound) {
	defer func() {
		if r := recover(); r != nil {
			in.err = n.recovered(r)
		}
	}()
	in.msg, in.wanted, in.err = decodeMessage(in.buf.bytes)
}

// deliver hands the messages of queue to the receiver until queue is closed.
// On an error it resets the stream, so that the reader stops, and drops the rest.
func (n *fastNetwork) deliver(s network.Stream, p peer.ID, queue <-chan *inbound, slots <-chan struct{}) (err error) {
	for in := range queue {
		if in.done != nil {
			<-in.done
		}
		if err == nil {
			if err = n.deliverOne(p, in); err != nil {
				_ = s.Reset()
			}
		}
		<-slots
	}
	return err
}

func (n *fastNetwork) deliverOne(p peer.ID, in *inbound) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = n.recovered(r)
		}
	}()
	if in.err != nil {
		return in.err
	}
	if n.cfg.Budget != nil && in.wanted > 0 {
		if err := n.cfg.Budget.Admit(p, in.wanted); err != nil {
			return fmt.Errorf("admit %d bytes of blocks: %w", in.wanted, err)
		}
		if l, ok := n.cfg.Budget.(lender); ok && in.buf.pool != nil && in.wanted >= cap(in.buf.bytes)/2 {
			l.lend(in.msg, in.buf)
		}
	}
	n.receiver.ReceiveMessage(context.Background(), p, in.msg)
	return nil
}

// lender is a Budget that knows when a block is stored.
type lender interface {
	// lend is called with a message that was admitted, before it is handed on, if its
	// blocks are slices of buf.
	lend(m gsmsg.GraphSyncMessage, buf *buffer)
}

// errIdle says that a stream was reset because nothing came, and nothing was lost.
var errIdle = errors.New("graphsync stream was idle")

// frameReader cuts a stream into messages.
type frameReader struct {
	s    network.Stream
	buf  *bufio.Reader
	cfg  NetworkConfig
	from *buffers
	set  time.Time // when the deadline was last moved
	busy bool      // a message has begun
}

func newFrameReader(s network.Stream, cfg NetworkConfig, from *buffers) *frameReader {
	r := &frameReader{s: s, cfg: cfg, from: from}
	r.buf = bufio.NewReaderSize(deadlineReader{r}, 4<<10)
	return r
}

// deadlineReader moves the deadline of its frameReader's stream while a
// message is under way. Moving it costs a timer, so it is done at most four
// times per timeout.
type deadlineReader struct{ *frameReader }

func (d deadlineReader) Read(p []byte) (int, error) {
	if now := time.Now(); d.busy && now.Sub(d.set) > d.cfg.StallTimeout/4 {
		d.moveDeadline(now, d.cfg.StallTimeout)
	}
	return d.s.Read(p)
}

func (r *frameReader) moveDeadline(now time.Time, after time.Duration) {
	deadline := time.Time{}
	if after > 0 {
		deadline = now.Add(after)
	}
	_ = r.s.SetReadDeadline(deadline) // some streams have none
	r.set = now
}

// next returns the next message without its length. The caller owns it. It
// returns io.EOF at the end of the stream and errIdle if none began in time.
func (r *frameReader) next() (*buffer, error) {
	if r.buf.Buffered() == 0 {
		r.busy = false
		r.moveDeadline(time.Now(), r.cfg.IdleTimeout)
		if _, err := r.buf.Peek(1); err != nil {
			if isTimeout(err) {
				return nil, errIdle
			}
			return nil, err
		}
	}
	r.busy, r.set = true, time.Time{}
	size, err := varint.ReadUvarint(r.buf)
	if err != nil {
		return nil, noEOF(err)
	}
	if size > uint64(r.cfg.MaxMessageSize) {
		return nil, limitError("bytes", size, uint64(r.cfg.MaxMessageSize))
	}
	b := r.from.get(min(int(size), readStep))
	for read := 0; ; {
		n, err := io.ReadFull(r.buf, b.bytes[read:])
		if err != nil {
			return nil, noEOF(err)
		}
		if read += n; read == int(size) {
			return b, nil
		}
		more := append(make([]byte, 0, min(int(size), 2*read)), b.bytes...)
		b = &buffer{bytes: more[:cap(more)]}
	}
}

// noEOF keeps an end in the middle of a message apart from one between two.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
