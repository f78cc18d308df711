package transport

import (
	"context"
	"errors"
	"fmt"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ErrNotQuiet is wrapped by the error of SetEventHandler for a handler that
// cannot be asked for the state of a channel. data-transfer's manager can.
var ErrNotQuiet = errors.New("events handler does not know the state of channels")

// Transport wraps the transport that is given to the manager.
func (q *Quiet) Transport(t datatransfer.PauseableTransport) datatransfer.PauseableTransport {
	return &quietTransport{t, q}
}

// Manager wraps the manager. It goes around WrapManager's.
func (q *Quiet) Manager(m datatransfer.Manager) datatransfer.Manager {
	return &quietManager{m, q}
}

// quietTransport puts the Quiet between the transport and its events handler.
type quietTransport struct {
	datatransfer.PauseableTransport
	q *Quiet
}

// SetEventHandler implements datatransfer.Transport.
func (t *quietTransport) SetEventHandler(h datatransfer.EventsHandler) error {
	s, ok := h.(states)
	if !ok {
		return fmt.Errorf("quiet progress with %T: %w", h, ErrNotQuiet)
	}
	if t.q.events != nil {
		return datatransfer.ErrHandlerAlreadySet
	}
	t.q.events = &quietEvents{h, s, t.q}
	return t.PauseableTransport.SetEventHandler(t.q.events)
}

// OpenChannel begins a channel with nothing and without a limit, unless it restarts
// one, which has a state.
func (t *quietTransport) OpenChannel(ctx context.Context, from peer.ID, chid datatransfer.ChannelID, root ipld.Link, sel datamodel.Node, state datatransfer.ChannelState, m datatransfer.Message) error {
	if state == nil && chid.Initiator != from {
		t.q.channel(chid).begins(0)
	}
	return t.PauseableTransport.OpenChannel(ctx, from, chid, root, sel, state, m)
}

// CloseChannel passes on what was gathered first: data-transfer then ends the
// channel.
func (t *quietTransport) CloseChannel(ctx context.Context, chid datatransfer.ChannelID) error {
	t.q.flush(chid)
	return t.PauseableTransport.CloseChannel(ctx, chid)
}

func (t *quietTransport) PauseChannel(ctx context.Context, chid datatransfer.ChannelID) error {
	t.q.flush(chid)
	return t.PauseableTransport.PauseChannel(ctx, chid)
}

func (t *quietTransport) ResumeChannel(ctx context.Context, m datatransfer.Message, chid datatransfer.ChannelID) error {
	t.q.flush(chid)
	return t.PauseableTransport.ResumeChannel(ctx, m, chid)
}

// CleanupChannel forgets the channel. Nothing is passed on: the channel is
// over, and its state machine may be waiting for this call.
func (t *quietTransport) CleanupChannel(chid datatransfer.ChannelID) {
	if g, ok := t.PauseableTransport.(*guardedTransport); ok {
		g.abandon(chid) // data-transfer's count lacks what is forgotten here
	}
	t.q.forget(chid)
	t.PauseableTransport.CleanupChannel(chid)
}

// states is the part of a data-transfer manager that knows channels.
type states interface {
	ChannelState(ctx context.Context, chid datatransfer.ChannelID) (datatransfer.ChannelState, error)
}

// quietEvents is the events handler that the transport sees.
type quietEvents struct {
	datatransfer.EventsHandler // everything that is not progress, or made of it
	states                     states
	q                          *Quiet
}

func (e *quietEvents) OnDataQueued(chid datatransfer.ChannelID, link ipld.Link, size uint64, index int64, unique bool) (datatransfer.Message, error) {
	a := e.q.channel(chid).tallies[tallyQueued].add(link, size, index, unique)
	return a.msg, a.err
}

func (e *quietEvents) OnDataSent(chid datatransfer.ChannelID, link ipld.Link, size uint64, index int64, unique bool) error {
	return e.q.channel(chid).tallies[tallySent].add(link, size, index, unique).err
}

func (e *quietEvents) OnDataReceived(chid datatransfer.ChannelID, link ipld.Link, size uint64, index int64, unique bool) error {
	return e.q.channel(chid).tallies[tallyReceived].add(link, size, index, unique).err
}

// OnRequestReceived may set a new limit, if it restarts a channel. One that it opens
// begins with nothing and with the limit that the validator set.
func (e *quietEvents) OnRequestReceived(chid datatransfer.ChannelID, r datatransfer.Request) (datatransfer.Response, error) {
	if c := e.q.known(chid); c != nil {
		if r.IsNew() || r.IsRestart() {
			c.doubt()
			defer c.certain()
		} else {
			c.flush()
		}
	}
	resp, err := e.EventsHandler.OnRequestReceived(chid, r)
	if limit, ok := e.q.granted(chid); ok && r.IsNew() && (err == nil || errors.Is(err, datatransfer.ErrPause)) {
		e.q.channel(chid).begins(limit)
	}
	return resp, err
}

func (e *quietEvents) OnResponseReceived(chid datatransfer.ChannelID, r datatransfer.Response) error {
	e.q.flush(chid)
	return e.EventsHandler.OnResponseReceived(chid, r)
}

func (e *quietEvents) OnChannelCompleted(chid datatransfer.ChannelID, err error) error {
	e.q.flush(chid)
	return e.EventsHandler.OnChannelCompleted(chid, err)
}

func (e *quietEvents) OnRequestCancelled(chid datatransfer.ChannelID, err error) error {
	e.q.flush(chid)
	return e.EventsHandler.OnRequestCancelled(chid, err)
}

func (e *quietEvents) OnRequestDisconnected(chid datatransfer.ChannelID, err error) error {
	e.q.flush(chid)
	return e.EventsHandler.OnRequestDisconnected(chid, err)
}

func (e *quietEvents) OnSendDataError(chid datatransfer.ChannelID, err error) error {
	e.q.flush(chid)
	return e.EventsHandler.OnSendDataError(chid, err)
}

func (e *quietEvents) OnReceiveDataError(chid datatransfer.ChannelID, err error) error {
	e.q.flush(chid)
	return e.EventsHandler.OnReceiveDataError(chid, err)
}

// quietManager tells the Quiet of limits before data-transfer has them, and
// shows no state that lags behind.
type quietManager struct {
	datatransfer.Manager
	q *Quiet
}

func (m *quietManager) UpdateValidationStatus(ctx context.Context, chid datatransfer.ChannelID, r datatransfer.ValidationResult) (err error) {
	c := m.q.channel(chid)
	limit := r.DataLimit
	if !r.Accepted { // the channel ends, and its limit stays
		limit = 0
	}
	c.change(limit)
	certain := false
	defer func() {
		c.changed(limit, certain)
		if !certain && !c.begun() {
			m.q.forget(chid) // there may be no such channel
		}
	}()
	err = m.Manager.UpdateValidationStatus(ctx, chid, r)
	certain = err == nil && r.Accepted
	return err
}

// RegisterVoucherType notes the limits of what the validator accepts.
func (m *quietManager) RegisterVoucherType(t datatransfer.TypeIdentifier, v datatransfer.RequestValidator) error {
	if isNil(v) {
		return m.Manager.RegisterVoucherType(t, v) // which refuses it
	}
	return m.Manager.RegisterVoucherType(t, &quietValidator{v, m.q})
}

// quietValidator tells the Quiet of limits as channels begin.
type quietValidator struct {
	datatransfer.RequestValidator
	q *Quiet
}

func (v *quietValidator) ValidatePull(chid datatransfer.ChannelID, p peer.ID, voucher datamodel.Node, root cid.Cid, sel datamodel.Node) (datatransfer.ValidationResult, error) {
	r, err := v.RequestValidator.ValidatePull(chid, p, voucher, root, sel)
	if err == nil && r.Accepted {
		v.q.grant(chid, r.DataLimit)
	}
	return r, err
}

// RestartDataTransferChannel asks for what data-transfer has not heard of.
func (m *quietManager) RestartDataTransferChannel(ctx context.Context, chid datatransfer.ChannelID) error {
	m.q.flush(chid)
	return m.Manager.RestartDataTransferChannel(ctx, chid)
}

func (m *quietManager) ChannelState(ctx context.Context, chid datatransfer.ChannelID) (datatransfer.ChannelState, error) {
	m.q.flush(chid)
	return m.Manager.ChannelState(ctx, chid)
}

func (m *quietManager) InProgressChannels(ctx context.Context) (map[datatransfer.ChannelID]datatransfer.ChannelState, error) {
	m.q.Flush()
	return m.Manager.InProgressChannels(ctx)
}

// Stop closes the Quiet first.
func (m *quietManager) Stop(ctx context.Context) error {
	m.q.Close()
	return m.Manager.Stop(ctx)
}
