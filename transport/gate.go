package transport

import (
	"context"
	"errors"
	"sync"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipld/go-ipld-prime"
)

// errStopping is what data-transfer's transport is told while the node stops.
var errStopping = errors.New("node is stopping")

// A gate lets calls through until it is closed. data-transfer's state machines
// answer a call that reaches them while they are being stopped never at all.
type gate struct{ rw sync.RWMutex }

// enter returns false if the gate is closed. Otherwise leave must be called.
func (g *gate) enter() bool { return g.rw.TryRLock() }

func (g *gate) leave() { g.rw.RUnlock() }

// close closes the gate for good and waits for the calls inside, at most d. It
// returns false if some are left.
func (g *gate) close(d time.Duration) bool {
	clear := make(chan struct{})
	go func() {
		g.rw.Lock() // never unlocked
		close(clear)
	}()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-clear:
		return true
	case <-t.C:
		return false
	}
}

// gatedEvents are data-transfer's event handlers behind a gate. Once it is
// closed a block pauses its response, so that the peer is not told of a failure,
// and everything else is dropped: in particular the end of this node's own
// requests, which stopping graphsync brings about and which is not theirs.
type gatedEvents struct {
	datatransfer.EventsHandler
	gate *gate
}

func (e *gatedEvents) through(f func() error) error {
	if !e.gate.enter() {
		return errStopping
	}
	defer e.gate.leave()
	return f()
}

func (e *gatedEvents) OnChannelOpened(c datatransfer.ChannelID) error {
	return e.through(func() error { return e.EventsHandler.OnChannelOpened(c) })
}

func (e *gatedEvents) OnResponseReceived(c datatransfer.ChannelID, m datatransfer.Response) error {
	return e.through(func() error { return e.EventsHandler.OnResponseReceived(c, m) })
}

func (e *gatedEvents) OnDataReceived(c datatransfer.ChannelID, l ipld.Link, size uint64, index int64, unique bool) error {
	return e.through(func() error { return e.EventsHandler.OnDataReceived(c, l, size, index, unique) })
}

func (e *gatedEvents) OnDataQueued(c datatransfer.ChannelID, l ipld.Link, size uint64, index int64, unique bool) (datatransfer.Message, error) {
	if !e.gate.enter() {
		return nil, datatransfer.ErrPause
	}
	defer e.gate.leave()
	return e.EventsHandler.OnDataQueued(c, l, size, index, unique)
}

func (e *gatedEvents) OnDataSent(c datatransfer.ChannelID, l ipld.Link, size uint64, index int64, unique bool) error {
	return e.through(func() error { return e.EventsHandler.OnDataSent(c, l, size, index, unique) })
}

func (e *gatedEvents) OnTransferInitiated(c datatransfer.ChannelID) {
	_ = e.through(func() error { e.EventsHandler.OnTransferInitiated(c); return nil })
}

func (e *gatedEvents) OnRequestReceived(c datatransfer.ChannelID, m datatransfer.Request) (datatransfer.Response, error) {
	if !e.gate.enter() {
		return nil, errStopping
	}
	defer e.gate.leave()
	return e.EventsHandler.OnRequestReceived(c, m)
}

func (e *gatedEvents) OnChannelCompleted(c datatransfer.ChannelID, err error) error {
	return e.through(func() error { return e.EventsHandler.OnChannelCompleted(c, err) })
}

func (e *gatedEvents) OnRequestCancelled(c datatransfer.ChannelID, err error) error {
	return e.through(func() error { return e.EventsHandler.OnRequestCancelled(c, err) })
}

func (e *gatedEvents) OnRequestDisconnected(c datatransfer.ChannelID, err error) error {
	return e.through(func() error { return e.EventsHandler.OnRequestDisconnected(c, err) })
}

func (e *gatedEvents) OnSendDataError(c datatransfer.ChannelID, err error) error {
	return e.through(func() error { return e.EventsHandler.OnSendDataError(c, err) })
}

func (e *gatedEvents) OnReceiveDataError(c datatransfer.ChannelID, err error) error {
	return e.through(func() error { return e.EventsHandler.OnReceiveDataError(c, err) })
}

func (e *gatedEvents) OnContextAugment(c datatransfer.ChannelID) func(context.Context) context.Context {
	return e.EventsHandler.OnContextAugment(c)
}
