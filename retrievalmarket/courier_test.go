package retrievalmarket

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// pay is a frame with a payment that is like no other.
func pay(id int) payFrame { return payFrame{id: voucher.DealID(id), payment: &voucher.DealPayment{}} }

// TestCourierIsBounded: so many frames are on the way and no more; of those that
// wait behind them only the latest is sent, once an answer has come.
func TestCourierIsBounded(t *testing.T) {
	c := &courier{wake: make(chan struct{}, 1)}
	for i := range maxFlying {
		if c.send(pay(i)); c.take() == nil {
			t.Fatalf("frame %d waits", i)
		}
	}
	for i := range 5 {
		if c.send(pay(100 + i)); c.take() != nil {
			t.Fatalf("%d frames on the way", len(c.flying))
		}
	}
	c.answered(ackFrame{})
	if f := c.take(); f == nil || f.id != 104 || c.booked {
		t.Fatalf("after an answer %+v is sent, booked %v", f, c.booked)
	}
	for range maxFlying {
		if c.booked || c.idle() {
			t.Fatal("an answer to an older payment counts for the last")
		}
		c.answered(ackFrame{})
	}
	if !c.booked || !c.idle() {
		t.Fatal("the answer to the last payment does not count")
	}
}

// TestCourierSendsAgain: what was on the way on a stream that broke is sent again,
// the latest alone, unless something newer waits; and what says that the client
// wants no more says so again.
func TestCourierSendsAgain(t *testing.T) {
	last := pay(3)
	last.done = true
	for name, tc := range map[string]struct {
		flying  []payFrame
		waiting *payFrame
		want    payFrame
	}{
		"the latest":              {[]payFrame{pay(1), pay(2), last}, nil, last},
		"what is newer":           {[]payFrame{pay(1), pay(2)}, &last, last},
		"done is not forgotten":   {[]payFrame{pay(1), {id: 2, done: true}}, &payFrame{id: 3, payment: last.payment}, last},
		"a question that is done": {[]payFrame{{id: 2, done: true}}, nil, payFrame{id: 2, done: true}},
	} {
		t.Run(name, func(t *testing.T) {
			c := &courier{wake: make(chan struct{}, 1)}
			for _, f := range tc.flying {
				c.send(f)
				c.take()
			}
			if tc.waiting != nil {
				c.send(*tc.waiting)
			}
			if c.putBack(); len(c.flying) != 0 {
				t.Fatalf("%d frames still on the way", len(c.flying))
			}
			c.booked = true // a payment of before is not added
			if f := c.take(); f == nil || f.id != tc.want.id || f.payment != tc.want.payment && tc.want.payment == last.payment || f.done != tc.want.done {
				t.Fatalf("%+v is sent, want %+v", f, tc.want)
			}
		})
	}
}

// TestCourierFlushes: the last word of a deal is not delivered because a payment
// before it is.
func TestCourierFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &clientDeal{inbox: newInbox(), deal: Deal{Account: revalidator.Account{Paid: voucher.Atto(5)}}}
		c := &courier{d: d, wake: make(chan struct{}, 1)}
		ack := ackFrame{paid: voucher.Atto(5)}
		for _, f := range []payFrame{pay(1), {id: 1, done: true}} {
			c.send(f)
			c.take()
		}
		flushed := make(chan bool, 1)
		go func() { flushed <- c.flush(t.Context()) }()
		c.answered(ack)
		d.inbox.post(ackNote{ack: ack})
		synctest.Wait()
		select {
		case <-flushed:
			t.Fatal("the last word is on the way, and was not waited for")
		default:
		}
		c.answered(ack)
		d.inbox.post(ackNote{ack: ack})
		if !<-flushed {
			t.Fatal("everything is delivered, and that was not seen")
		}
	})
}

// pipeStream is one end of a pipe as a stream.
type pipeStream struct{ net.Conn }

func (s pipeStream) Reset() error { return s.Close() }

// TestPayLine: frames go out while no answer comes, and answers are heard in
// order; no goroutine is left.
func TestPayLine(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	near, far := net.Pipe()
	defer far.Close()
	heard := make(chan voucher.DealID, maxFlying)
	l := newPayLine(pipeStream{near}, func(a ackFrame, _ time.Duration) error { heard <- a.id; return nil })
	written := make(chan error, 1)
	go func() {
		for i := range maxFlying {
			if err := l.send(t.Context(), &payFrame{id: voucher.DealID(i)}); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	r := bufio.NewReader(far)
	for range maxFlying { // all are read before one is answered
		if _, err := readFrame(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	for i := range maxFlying {
		n, err := ackFrame{id: voucher.DealID(i)}.node()
		if err := writeFrame(far, n, err); err != nil {
			t.Fatal(err)
		}
		if got := <-heard; got != voucher.DealID(i) {
			t.Fatalf("answer %d is for %d", i, got)
		}
	}
	l.close()
	if err := l.err(); err != nil {
		t.Fatalf("nothing was waited for, and yet %v", err)
	}
}

// TestCourierKeepsToItsLine: that payments are to ride along from now on does not
// part a frame, which was taken before, from those on the stream: their answers are
// still to come.
func TestCourierKeepsToItsLine(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := &courier{wake: make(chan struct{}, 1)}
	heard := make(chan struct{}, maxFlying)
	c.line = newPayLine(pipeStream{near}, func(a ackFrame, _ time.Duration) error {
		c.answered(a)
		heard <- struct{}{}
		return nil
	})
	defer c.hangUp()
	r := bufio.NewReader(far)
	read := make(chan error, 2)
	for i := range 2 {
		c.send(payFrame{id: voucher.DealID(i)})
		f := c.take()
		if i == 1 {
			c.rideAlong()
		}
		go func() {
			_, err := readFrame(r)
			read <- err
		}()
		if err := c.deliver(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		if len(c.flying) != i+1 {
			t.Fatalf("%d frames are on the way, want %d", len(c.flying), i+1)
		}
		if err := <-read; err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		n, err := ackFrame{}.node()
		if err := writeFrame(far, n, err); err != nil {
			t.Fatal(err)
		}
		<-heard
	}
	if !c.idle() {
		t.Fatal("everything is answered, and something is on the way")
	}
}

// TestPayLineEnds: a provider that does not answer in time, answers nonsense or
// cannot take a payment now ends the line, which says so.
func TestPayLineEnds(t *testing.T) {
	busy := errors.New("busy")
	for name, tc := range map[string]struct {
		answer func(far net.Conn)
		want   error
	}{
		"silent":   {func(net.Conn) {}, os.ErrDeadlineExceeded},
		"nonsense": {func(far net.Conn) { _, _ = far.Write([]byte{0xff, 0xff, 0xff, 0x7f}) }, errFrameSize},
		"busy": {func(far net.Conn) {
			n, err := ackFrame{}.node()
			_ = writeFrame(far, n, err)
		}, busy},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer far.Close()
				l := newPayLine(pipeStream{near}, func(ackFrame, time.Duration) error { return busy })
				go func() {
					_, _ = readFrame(bufio.NewReader(far))
					tc.answer(far)
				}()
				start := time.Now()
				if err := l.send(t.Context(), &payFrame{}); err != nil {
					t.Fatal(err)
				}
				<-l.broken()
				if err := l.err(); !errors.Is(err, tc.want) || time.Since(start) > payTimeout {
					t.Fatalf("%v after %s", err, time.Since(start))
				}
				l.close()
			})
		})
	}
}

// TestReadPayFrames: frames that have arrived are taken together, the rest of one
// that has not is not waited for, and of payments that wait the last stands for
// all.
func TestReadPayFrames(t *testing.T) {
	var wire bytes.Buffer
	for _, f := range []payFrame{{id: 9, payment: testPayment(t)}, {id: 9, payment: testPayment(t)}, {id: 9, done: true}, {id: 8, payment: testPayment(t)}} {
		n, err := f.node()
		if err := writeFrame(&wire, n, err); err != nil {
			t.Fatal(err)
		}
	}
	cut := wire.Len() - 1
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go func() { _, _ = far.Write(wire.Bytes()[:cut]) }()
	r := bufio.NewReaderSize(near, readAhead)
	frames, err := readPayFrames(r)
	if err != nil || len(frames) != 3 || mergeable(frames) != 2 || mergeable(frames[2:]) != 1 {
		t.Fatalf("%d frames, %v", len(frames), err)
	}
	go func() { _, _ = far.Write(wire.Bytes()[cut:]) }()
	if frames, err = readPayFrames(r); err != nil || len(frames) != 1 || frames[0].frame.id != 8 {
		t.Fatalf("%+v, %v", frames, err)
	}
}

// TestMergeable: a bad frame, another deal, a question and a last word stand for
// themselves.
func TestMergeable(t *testing.T) {
	p := func(id int) asked { return asked{frame: pay(id)} }
	done := p(1)
	done.frame.done = true
	for name, tc := range map[string]struct {
		frames []asked
		want   int
	}{
		"one":            {[]asked{p(1)}, 1},
		"three":          {[]asked{p(1), p(1), p(1)}, 3},
		"the last word":  {[]asked{p(1), done, p(1)}, 2},
		"another deal":   {[]asked{p(1), p(2)}, 1},
		"a question":     {[]asked{p(1), {frame: payFrame{id: 1}}}, 1},
		"after one":      {[]asked{{frame: payFrame{id: 1}}, p(1)}, 1},
		"nonsense":       {[]asked{p(1), {frame: pay(1), err: errFrameSize}}, 1},
		"after nonsense": {[]asked{{frame: pay(1), err: errFrameSize}, p(1)}, 1},
	} {
		if got := mergeable(tc.frames); got != tc.want {
			t.Errorf("%s: %d frames in one, want %d", name, got, tc.want)
		}
	}
}
