package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	rt "github.com/filecoin-project/go-retrieval-types"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/voucher"
)

// strictProvider is a provider of the existing network: it holds every deal
// until the data is loaded, stops at each interval, asks for what is owed up to
// the interval's beginning, looks at a payment only when it has asked for one,
// and keeps the channel open at its end for the last.
type strictProvider struct {
	*stock
	ask    rt.Params // prices and intervals
	payTo  address.Address
	dag    chain
	asks   rt.DealStatus // with which status it asks for money at a boundary, if not with FundsNeeded
	full   bool          // it asks for all that it sent, and not for what lies below the boundary
	unsub  datatransfer.Unsubscribe
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu        sync.Mutex
	deals     map[datatransfer.ChannelID]*strictDeal // guarded by mu; on disk, in a real one
	proposals int                                    // guarded by mu; how many were made
	repeated  int                                    // guarded by mu; and how many of them again
}

// strictDeal is one deal. What is below events is owned by run while it runs.
type strictDeal struct {
	proposal rt.DealProposal
	full     bool // see strictProvider
	events   *events

	state    rt.DealStatus
	loaded   bool
	received big.Int
	lane     *uint64
	last     *paych.SignedVoucher // saved
	sent     []uint64             // the amounts of the vouchers that came, without repetitions
	said     []rt.DealStatus
	err      error

	done chan struct{} // closed when the state is final
}

func newStrictProvider(t testing.TB, dag chain, ask rt.Params) *strictProvider {
	t.Helper()
	key, err := voucher.NewKey()
	must(t, err)
	s := &strictProvider{stock: newStock(t, dag.blocks), ask: ask, payTo: key.Address(), dag: dag, deals: make(map[datatransfer.ChannelID]*strictDeal)}
	s.open()
	t.Cleanup(s.close)
	return s
}

// open takes up service, also after a restart of the stock node.
func (s *strictProvider) open() {
	s.t.Helper()
	s.ctx, s.cancel = context.WithCancel(context.Background())
	must(s.t, s.dt.RegisterVoucherType(rt.DealProposalType, s))
	s.unsub = s.dt.SubscribeToEvents(s.onEvent)
	s.host.SetStreamHandler("/fil/retrieval/qry/1.0.0", s.serveQuery)
	s.mu.Lock()
	defer s.mu.Unlock()
	for chid, d := range s.deals {
		s.work.Go(func() { s.run(chid, d) })
	}
}

func (s *strictProvider) close() {
	s.cancel()
	s.unsub()
	s.work.Wait()
}

// restart is the end of the process, and another one on the same disk. What
// data-transfer was told is on it: it writes bytes and index of a block apart,
// and one that dies between them counts wrong for ever.
func (s *strictProvider) restart() {
	s.mu.Lock()
	for chid := range s.deals {
		_, err := s.dt.ChannelState(s.ctx, chid)
		must(s.t, err)
	}
	s.mu.Unlock()
	s.close()
	s.stop()
	s.start()
	s.open()
}

func (s *strictProvider) serveQuery(st network.Stream) {
	defer st.Close()
	var q rt.Query
	if q.UnmarshalCBOR(st) != nil {
		return
	}
	r := rt.QueryResponse{
		Status: rt.QueryResponseUnavailable, Message: "not here", PaymentAddress: s.payTo, MinPricePerByte: s.ask.PricePerByte, UnsealPrice: s.ask.UnsealPrice,
		MaxPaymentInterval: s.ask.PaymentInterval, MaxPaymentIntervalIncrease: s.ask.PaymentIntervalIncrease,
	}
	if q.PayloadCID == s.dag.root {
		r.Status, r.Message, r.Size = rt.QueryResponseAvailable, "", 1<<20 // the size of the piece
	}
	_ = r.MarshalCBOR(st) // the client sees that it is missing
}

func (s *strictProvider) ValidatePush(datatransfer.ChannelID, peer.ID, datamodel.Node, cid.Cid, datamodel.Node) (datatransfer.ValidationResult, error) {
	return datatransfer.ValidationResult{}, errors.New("no pushes accepted")
}

func (s *strictProvider) ValidatePull(chid datatransfer.ChannelID, from peer.ID, v datamodel.Node, root cid.Cid, sel datamodel.Node) (datatransfer.ValidationResult, error) {
	p, err := rt.DealProposalFromNode(v)
	if err != nil {
		return datatransfer.ValidationResult{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proposals++
	for old := range s.deals {
		if old.Initiator == from && s.deals[old].proposal.ID == p.ID {
			s.repeated++
			return datatransfer.ValidationResult{}, fmt.Errorf("deal %d is there already", p.ID)
		}
	}
	if why := s.refuse(p, root, sel); why != "" {
		return result(rt.DealResponse{ID: p.ID, Status: rt.DealStatusRejected, PaymentOwed: big.Zero(), Message: why}, datatransfer.ValidationResult{}), nil
	}
	d := &strictDeal{proposal: *p, full: s.full, events: newEvents(), state: rt.DealStatusUnsealing, received: big.Zero(), done: make(chan struct{})}
	r := rt.DealResponse{ID: p.ID, Status: rt.DealStatusAccepted, PaymentOwed: big.Zero()}
	if !p.UnsealPrice.IsZero() {
		d.state, r.Status, r.PaymentOwed = rt.DealStatusFundsNeededUnseal, rt.DealStatusFundsNeededUnseal, p.UnsealPrice
	}
	s.deals[chid] = d
	s.work.Go(func() { s.run(chid, d) })
	return result(r, datatransfer.ValidationResult{Accepted: true, ForcePause: true, DataLimit: nextInterval(p.Params, big.Zero()), RequiresFinalization: true}), nil
}

// refuse says why a proposal is not taken.
func (s *strictProvider) refuse(p *rt.DealProposal, root cid.Cid, sel datamodel.Node) string {
	want := p.Selector.Node
	if p.Selector.IsNull() {
		want = wholeDAG
	}
	switch {
	case p.PayloadCID != root:
		return "incorrect CID for this proposal"
	case !datamodel.DeepEqual(want, sel):
		return "incorrect selector specified for this proposal"
	case p.PricePerByte.LessThan(s.ask.PricePerByte):
		return "Price per byte too low"
	case p.PaymentInterval > s.ask.PaymentInterval:
		return "Payment interval too large"
	case p.PaymentIntervalIncrease > s.ask.PaymentIntervalIncrease:
		return "Payment interval increase too large"
	case p.UnsealPrice.LessThan(s.ask.UnsealPrice):
		return "Unseal price too small"
	}
	return ""
}

func (s *strictProvider) ValidateRestart(chid datatransfer.ChannelID, st datatransfer.ChannelState) (datatransfer.ValidationResult, error) {
	s.mu.Lock()
	d := s.deals[chid]
	s.mu.Unlock()
	if d == nil {
		return datatransfer.ValidationResult{}, errors.New("no such deal")
	}
	v := make(chan datatransfer.ValidationResult, 1)
	d.events.put(datatransfer.Event{Code: restartCode, Message: chid.String()}, restartState{st, v})
	select {
	case r := <-v:
		return r, nil
	case <-time.After(5 * time.Second):
		return datatransfer.ValidationResult{}, errors.New("the deal does not answer")
	}
}

// restartCode marks the question of a restart among a deal's events.
const restartCode = datatransfer.EventCode(-1)

type restartState struct {
	datatransfer.ChannelState
	answer chan datatransfer.ValidationResult
}

func result(r rt.DealResponse, v datatransfer.ValidationResult) datatransfer.ValidationResult {
	v.VoucherResult = &datatransfer.TypedVoucher{Voucher: rt.BindnodeRegistry.TypeToNode(&r), Type: rt.DealResponseType}
	return v
}

func (s *strictProvider) onEvent(e datatransfer.Event, st datatransfer.ChannelState) {
	s.mu.Lock()
	d := s.deals[st.ChannelID()]
	s.mu.Unlock()
	if d != nil {
		d.events.put(e, st)
	}
}

func (s *strictProvider) run(chid datatransfer.ChannelID, d *strictDeal) {
	for {
		for _, e := range d.events.take() {
			s.handle(chid, d, e)
			if d.state == rt.DealStatusCompleted || d.state == rt.DealStatusErrored {
				close(d.done)
				return
			}
		}
		select {
		case <-d.events.wake:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *strictProvider) handle(chid datatransfer.ChannelID, d *strictDeal, e event) {
	switch {
	case e.Code == restartCode:
		e.st.(restartState).answer <- d.mayGoOn(e.st)
		return
	case e.Code == datatransfer.NewVoucher:
		d.note(e.st.LastVoucher())
	case e.st.Status() == datatransfer.Completed:
		d.state = rt.DealStatusCompleted
		return
	}
	switch e.Code {
	case datatransfer.Accept:
		if d.state == rt.DealStatusUnsealing {
			s.load(chid, d)
		}
	case datatransfer.DataLimitExceeded:
		if d.state == rt.DealStatusOngoing {
			d.state = rt.DealStatusFundsNeeded
		}
		s.updateFunding(chid, d)
	case datatransfer.BeginFinalizing:
		d.state = rt.DealStatusFundsNeededLastPayment
		s.updateFunding(chid, d)
	case datatransfer.NewVoucher:
		s.updateFunding(chid, d)
	}
}

// note writes down what the client sent, whether or not it is looked at.
func (d *strictDeal) note(v datatransfer.TypedVoucher) {
	p, err := rt.DealPaymentFromNode(v.Voucher)
	if err != nil || v.Type != rt.DealPaymentType {
		d.fail(fmt.Errorf("voucher of type %s: %w", v.Type, err))
		return
	}
	if n := p.PaymentVoucher.Amount.Uint64(); !slices.Contains(d.sent, n) {
		d.sent = append(d.sent, n)
	}
}

func (d *strictDeal) fail(err error) { d.state, d.err = rt.DealStatusErrored, err }

// load is unsealing, or finding the data, after which the channel is let go.
func (s *strictProvider) load(chid datatransfer.ChannelID, d *strictDeal) {
	d.loaded, d.state = true, rt.DealStatusOngoing
	if err := s.dt.ResumeDataTransferChannel(s.ctx, chid); err != nil {
		d.fail(err)
	}
}

func (d *strictDeal) mayGoOn(st datatransfer.ChannelState) datatransfer.ValidationResult {
	owed := d.owed(st)
	return datatransfer.ValidationResult{
		Accepted: true, ForcePause: !d.loaded, DataLimit: nextInterval(d.proposal.Params, d.received),
		RequiresFinalization: d.state != rt.DealStatusFundsNeededLastPayment && d.state != rt.DealStatusFinalizing || !owed.IsZero(),
	}
}

// updateFunding is what such a provider does in a state in which it needs funds,
// and in no other: take in the last voucher, and let the channel go or ask.
func (s *strictProvider) updateFunding(chid datatransfer.ChannelID, d *strictDeal) {
	switch d.state {
	case rt.DealStatusFundsNeeded, rt.DealStatusFundsNeededLastPayment, rt.DealStatusFundsNeededUnseal:
	default:
		return
	}
	st, err := s.dt.ChannelState(s.ctx, chid)
	if err == nil && st.LastVoucher().Type == rt.DealPaymentType {
		err = d.save(st.LastVoucher())
	}
	if err != nil {
		d.fail(err)
		return
	}
	v := d.mayGoOn(st)
	if owed := d.owed(st); !owed.IsZero() {
		d.said = append(d.said, d.state)
		status := d.state
		if status == rt.DealStatusFundsNeeded && s.asks != 0 {
			status = s.asks
		}
		v = result(rt.DealResponse{ID: d.proposal.ID, Status: status, PaymentOwed: owed}, v)
	} else if d.state == rt.DealStatusFundsNeededLastPayment {
		d.said = append(d.said, rt.DealStatusCompleted)
		v = result(rt.DealResponse{ID: d.proposal.ID, Status: rt.DealStatusCompleted, PaymentOwed: big.Zero()}, v)
		d.state = rt.DealStatusFinalizing
	} else if d.state == rt.DealStatusFundsNeededUnseal {
		s.load(chid, d)
		v.ForcePause = false
	} else {
		d.state = rt.DealStatusOngoing
	}
	if err := s.dt.UpdateValidationStatus(s.ctx, chid, v); err != nil {
		s.t.Logf("strict provider: %v", err) // the client is gone; it comes back
	}
}

// save checks a payment as a node with a payment channel does.
func (d *strictDeal) save(v datatransfer.TypedVoucher) error {
	p, err := rt.DealPaymentFromNode(v.Voucher)
	if err != nil {
		return err
	}
	sv := p.PaymentVoucher
	signer, err := voucher.Signer(sv)
	switch {
	case err != nil:
		return err
	case signer.Empty() || sv.ChannelAddr != p.PaymentChannel || p.ID != d.proposal.ID:
		return errors.New("payment for something else")
	case sv.Extra != nil || len(sv.SecretHash)+len(sv.Merges) != 0 || sv.TimeLockMin != 0 || sv.TimeLockMax != 0 || sv.MinSettleHeight != 0:
		return errors.New("payment with conditions")
	case d.lane != nil && *d.lane != sv.Lane:
		return errors.New("payment on another lane")
	case d.last != nil && bytes.Equal(encoded(d.last), encoded(sv)):
		return nil // again
	case d.last != nil && (sv.Nonce <= d.last.Nonce || !sv.Amount.GreaterThan(d.last.Amount)):
		return fmt.Errorf("payment %d of %s after %d of %s", sv.Nonce, sv.Amount, d.last.Nonce, d.last.Amount)
	}
	d.lane, d.last, d.received = &sv.Lane, sv, sv.Amount
	return nil
}

func encoded(v *paych.SignedVoucher) []byte {
	var b bytes.Buffer
	if err := v.MarshalCBOR(&b); err != nil {
		return nil
	}
	return b.Bytes()
}

// owed is what is asked for: the bytes up to the beginning of the interval, or
// all of them at the end.
func (d *strictDeal) owed(st datatransfer.ChannelState) big.Int {
	p := d.proposal.Params
	if d.received.LessThan(p.UnsealPrice) {
		return big.Sub(p.UnsealPrice, d.received)
	}
	bytes := st.Queued()
	if !d.full && !p.PricePerByte.IsZero() && !st.Status().InFinalization() {
		bytes = p.IntervalLowerBound(bytes)
	}
	owed := big.Sub(big.Mul(big.NewIntUnsigned(bytes), p.PricePerByte), big.Sub(d.received, p.UnsealPrice))
	if owed.LessThan(big.Zero()) {
		return big.Zero()
	}
	return owed
}

// nextInterval is the data limit after so much was paid; 0 is none.
func nextInterval(p rt.Params, paid big.Int) uint64 {
	if p.PricePerByte.IsZero() {
		return 0
	}
	covered := uint64(0)
	if paid.GreaterThan(p.UnsealPrice) {
		covered = big.Div(big.Sub(paid, p.UnsealPrice), p.PricePerByte).Uint64()
	}
	end, length := uint64(0), p.PaymentInterval
	for end <= covered {
		end += length
		length += p.PaymentIntervalIncrease
	}
	return end
}

// deal returns the only deal, when it has ended.
func (s *strictProvider) deal(ctx context.Context) *strictDeal {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.deals) != 1 {
		s.t.Fatalf("%d deals, want 1", len(s.deals))
	}
	for _, d := range s.deals {
		s.mu.Unlock()
		select {
		case <-d.done:
		case <-ctx.Done():
			s.t.Errorf("the provider's deal does not end")
		}
		s.mu.Lock()
		return d
	}
	return nil
}

// all returns the deals, and how many proposals were made again.
func (s *strictProvider) all() (deals []*strictDeal, repeated int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.deals {
		deals = append(deals, d)
	}
	return deals, s.repeated
}
