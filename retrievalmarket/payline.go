package retrievalmarket

import (
	"bufio"
	"context"
	"io"
	"time"
)

// payStream is what a payLine needs of a stream.
type payStream interface {
	io.ReadWriter
	SetReadDeadline(time.Time) error
	Reset() error
}

// payLine is one payment stream of a client. Frames are written by its owner and
// answers read by a goroutine of its own, so that neither waits for the other;
// each has its deadline.
type payLine struct {
	stream payStream
	reader *bufio.Reader                                // owned by listen
	heard  func(ack ackFrame, took time.Duration) error // called for each answer, in order, by listen
	sent   chan time.Time                               // when each frame was sent that is not answered; closed by the owner
	ended  chan struct{}                                // closed when nothing is read any more
	why    error                                        // valid once ended is closed
}

// newPayLine begins to listen on s. Close what it returns.
func newPayLine(s payStream, heard func(ackFrame, time.Duration) error) *payLine {
	l := &payLine{stream: s, reader: bufio.NewReaderSize(s, 4<<10), heard: heard, sent: make(chan time.Time, maxFlying), ended: make(chan struct{})}
	go l.listen()
	return l
}

// broken is closed when no more answers come; nil if there is no line.
func (l *payLine) broken() <-chan struct{} {
	if l == nil {
		return nil
	}
	return l.ended
}

// err returns why no more answers come, nil as long as they do.
func (l *payLine) err() error {
	if l == nil {
		return nil
	}
	select {
	case <-l.ended:
		return l.why
	default:
		return nil
	}
}

// send writes f, of which at most maxFlying may be without an answer. After an
// error the line is of no more use.
func (l *payLine) send(ctx context.Context, f *payFrame) error {
	stop := context.AfterFunc(ctx, func() { _ = l.stream.Reset() }) // ends the write below
	defer stop()
	node, err := f.node()
	l.sent <- time.Now()
	return writeFrame(l.stream, node, err)
}

// listen reads an answer for each frame that was sent.
func (l *payLine) listen() {
	defer close(l.ended)
	for sent := range l.sent {
		if l.why = l.hear(sent); l.why != nil {
			return
		}
	}
}

func (l *payLine) hear(sent time.Time) error {
	if err := l.stream.SetReadDeadline(sent.Add(payTimeout)); err != nil {
		return err
	}
	answer, err := readFrame(l.reader)
	if err != nil {
		return err
	}
	ack, err := parseAckFrame(answer)
	if err != nil {
		return err
	}
	return l.heard(ack, time.Since(sent))
}

// close ends the stream and waits until nothing is read any more.
func (l *payLine) close() {
	_ = l.stream.Reset() // nothing on it is waited for
	close(l.sent)
	<-l.ended
}
