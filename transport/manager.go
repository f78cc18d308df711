package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ErrChannelTerminal is the error for changing a channel that has completed,
// failed or been cancelled.
var ErrChannelTerminal = errors.New("channel is terminal")

// sendTimeout bounds every call of a manager that sends a message.
const sendTimeout = 10 * time.Second

// guardedManager is a data-transfer manager that neither panics nor hangs.
type guardedManager struct {
	datatransfer.Manager
	log *slog.Logger
}

// WrapManager guards a data-transfer manager.
//
//   - What sends a message ends after 10 s, or when its context does. A context
//     given to OpenPullDataChannel or RestartDataTransferChannel is left alone: it
//     bounds the transfer itself and must live as long.
//   - UpdateValidationStatus returns datatransfer.ErrChannelNotFound or
//     ErrChannelTerminal where the manager panics.
//   - A panic in a validator, a configurer or a subscriber is an error of that one
//     call. Unguarded it ends the process.
//   - A nil validator and a selector that does not compile are refused. With the
//     one any peer could make the manager panic, with the other opening a channel
//     never returns.
func WrapManager(m datatransfer.Manager) datatransfer.Manager {
	return &guardedManager{m, slog.Default()}
}

// UpdateValidationStatus asks for the state of the channel only if the update fails:
// that takes a turn of its state machine.
func (m *guardedManager) UpdateValidationStatus(ctx context.Context, chid datatransfer.ChannelID, v datatransfer.ValidationResult) (err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	defer func() {
		r := recover() // the manager panics on the state that it does not have; a peer can bring that about, so it is no news
		if r == nil && err == nil {
			return
		}
		now, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout) // the update may have failed because its time was over
		defer cancel()
		switch why := m.open(now, chid); {
		case why != nil:
			err = errors.Join(why, err)
		case r != nil && ctx.Err() != nil: // nor has it a state that is not told in time
			err = fmt.Errorf("update of channel %s: %w", chid, ctx.Err())
		case r != nil:
			err = m.panicked(r, "update of channel "+chid.String())
		}
	}()
	return m.Manager.UpdateValidationStatus(ctx, chid, v)
}

// open fails if there is no such channel or it is terminal.
func (m *guardedManager) open(ctx context.Context, chid datatransfer.ChannelID) error {
	switch s := m.Manager.TransferChannelStatus(ctx, chid); s {
	case datatransfer.ChannelNotFoundError:
		return fmt.Errorf("channel %s: %w", chid, datatransfer.ErrChannelNotFound)
	case datatransfer.Completed, datatransfer.Failed, datatransfer.Cancelled:
		return fmt.Errorf("channel %s is %s: %w", chid, s, ErrChannelTerminal)
	}
	return nil
}

// ChannelState is bounded: a state machine that is being stopped does not answer.
func (m *guardedManager) ChannelState(ctx context.Context, chid datatransfer.ChannelID) (datatransfer.ChannelState, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return m.Manager.ChannelState(ctx, chid)
}

// TransferChannelStatus is bounded like ChannelState.
func (m *guardedManager) TransferChannelStatus(ctx context.Context, chid datatransfer.ChannelID) datatransfer.Status {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return m.Manager.TransferChannelStatus(ctx, chid)
}

func (m *guardedManager) SendVoucher(ctx context.Context, chid datatransfer.ChannelID, v datatransfer.TypedVoucher) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return m.Manager.SendVoucher(ctx, chid, v)
}

func (m *guardedManager) SendVoucherResult(ctx context.Context, chid datatransfer.ChannelID, v datatransfer.TypedVoucher) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return m.Manager.SendVoucherResult(ctx, chid, v)
}

// CloseDataTransferChannel is bounded: for a channel without a graphsync request
// the manager waits for its context only.
func (m *guardedManager) CloseDataTransferChannel(ctx context.Context, chid datatransfer.ChannelID) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return m.Manager.CloseDataTransferChannel(ctx, chid)
}

func (m *guardedManager) PauseDataTransferChannel(ctx context.Context, chid datatransfer.ChannelID) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return m.Manager.PauseDataTransferChannel(ctx, chid)
}

func (m *guardedManager) ResumeDataTransferChannel(ctx context.Context, chid datatransfer.ChannelID) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return m.Manager.ResumeDataTransferChannel(ctx, chid)
}

// RestartDataTransferChannel asks for the rest of a channel. It fails for a
// terminal channel, where the manager does nothing and says so to nobody.
func (m *guardedManager) RestartDataTransferChannel(ctx context.Context, chid datatransfer.ChannelID) (err error) {
	defer m.recovered(&err, "restart of channel "+chid.String())
	if err := m.open(ctx, chid); err != nil {
		return err
	}
	return m.Manager.RestartDataTransferChannel(ctx, chid)
}

func (m *guardedManager) OpenPullDataChannel(ctx context.Context, to peer.ID, v datatransfer.TypedVoucher, root cid.Cid, sel datamodel.Node, opts ...datatransfer.TransferOption) (datatransfer.ChannelID, error) {
	if err := checkSelector(root, sel); err != nil {
		return datatransfer.ChannelID{}, err
	}
	return m.Manager.OpenPullDataChannel(ctx, to, v, root, sel, opts...)
}

func (m *guardedManager) OpenPushDataChannel(ctx context.Context, to peer.ID, v datatransfer.TypedVoucher, root cid.Cid, sel datamodel.Node, opts ...datatransfer.TransferOption) (datatransfer.ChannelID, error) {
	return datatransfer.ChannelID{}, fmt.Errorf("push is not served by this transport: %w", datatransfer.ErrUnsupported)
}

// checkSelector refuses what graphsync would silently not send.
func checkSelector(root cid.Cid, sel datamodel.Node) error {
	if !root.Defined() {
		return errors.New("root is undefined: give the CID to fetch")
	}
	if isNull(sel) {
		return errors.New("selector is missing: give one, such as that for the whole DAG")
	}
	if _, err := selector.ParseSelector(sel); err != nil {
		return fmt.Errorf("selector does not compile: %w", err)
	}
	return nil
}

// SubscribeToEvents calls f for every event. A panic in f loses that one event.
func (m *guardedManager) SubscribeToEvents(f datatransfer.Subscriber) datatransfer.Unsubscribe {
	return m.Manager.SubscribeToEvents(func(ev datatransfer.Event, s datatransfer.ChannelState) {
		var lost error
		defer m.recovered(&lost, "subscriber")
		f(ev, s)
	})
}

func (m *guardedManager) RegisterVoucherType(t datatransfer.TypeIdentifier, v datatransfer.RequestValidator) error {
	if isNil(v) {
		return fmt.Errorf("validator of voucher type %q is nil: a node that only fetches registers none", t)
	}
	return m.Manager.RegisterVoucherType(t, &guardedValidator{v, m})
}

func (m *guardedManager) RegisterTransportConfigurer(t datatransfer.TypeIdentifier, f datatransfer.TransportConfigurer) error {
	if f == nil {
		return fmt.Errorf("configurer of voucher type %q is nil", t)
	}
	return m.Manager.RegisterTransportConfigurer(t, func(chid datatransfer.ChannelID, v datatransfer.TypedVoucher) (opts []datatransfer.TransportOption) {
		var err error
		defer func() {
			if err != nil { // the channel must not be served from another's store
				failed := err
				opts = []datatransfer.TransportOption{func(datatransfer.ChannelID, datatransfer.Transport) error { return failed }}
			}
		}()
		defer m.recovered(&err, "configurer")
		return f(chid, v)
	})
}

// isNil says whether v is nil or a nil pointer in an interface.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Func, reflect.Chan, reflect.Slice:
		return r.IsNil()
	}
	return false
}

// recovered turns a panic into err. It must be deferred directly.
func (m *guardedManager) recovered(err *error, what string) {
	if r := recover(); r != nil {
		*err = m.panicked(r, what)
	}
}

// panicked logs a panic and returns it as an error.
func (m *guardedManager) panicked(r any, what string) error {
	m.log.Error("recovered from a panic", "in", what, "panic", r, "stack", string(debug.Stack()))
	return fmt.Errorf("panic in %s", what)
}

// guardedValidator is a validator that returns an error where it would panic.
type guardedValidator struct {
	datatransfer.RequestValidator
	m *guardedManager
}

func (v *guardedValidator) ValidatePush(chid datatransfer.ChannelID, p peer.ID, voucher datamodel.Node, root cid.Cid, sel datamodel.Node) (r datatransfer.ValidationResult, err error) {
	defer v.m.recovered(&err, "validator")
	return v.RequestValidator.ValidatePush(chid, p, voucher, root, sel)
}

func (v *guardedValidator) ValidatePull(chid datatransfer.ChannelID, p peer.ID, voucher datamodel.Node, root cid.Cid, sel datamodel.Node) (r datatransfer.ValidationResult, err error) {
	defer v.m.recovered(&err, "validator")
	return v.RequestValidator.ValidatePull(chid, p, voucher, root, sel)
}

func (v *guardedValidator) ValidateRestart(chid datatransfer.ChannelID, s datatransfer.ChannelState) (r datatransfer.ValidationResult, err error) {
	defer v.m.recovered(&err, "validator")
	return v.RequestValidator.ValidateRestart(chid, s)
}
