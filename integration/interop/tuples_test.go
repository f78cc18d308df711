package interop

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	rt "github.com/filecoin-project/go-retrieval-types"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/protocol"
	cbg "github.com/whyrusleeping/cbor-gen"
	"pgregory.net/rapid"

	"github.com/tollgraph/tollgraph/integration/interop/tuples"
	"github.com/tollgraph/tollgraph/voucher"
)

// dialect is how a stock client writes its vouchers.
type dialect interface {
	proposal(rt.DealProposal) (datatransfer.TypedVoucher, error)
	payment(id rt.DealID, channel address.Address, v *paych.SignedVoucher) (datatransfer.TypedVoucher, error)
	response(datatransfer.TypedVoucher) (*rt.DealResponse, error)
}

// inMaps is the dialect of go-retrieval-types.
type inMaps struct{}

func (inMaps) proposal(p rt.DealProposal) (datatransfer.TypedVoucher, error) {
	return datatransfer.TypedVoucher{Voucher: rt.BindnodeRegistry.TypeToNode(&p), Type: rt.DealProposalType}, nil
}

func (inMaps) payment(id rt.DealID, channel address.Address, v *paych.SignedVoucher) (datatransfer.TypedVoucher, error) {
	p := rt.DealPayment{ID: id, PaymentChannel: channel, PaymentVoucher: v}
	return datatransfer.TypedVoucher{Voucher: rt.BindnodeRegistry.TypeToNode(&p), Type: rt.DealPaymentType}, nil
}

func (inMaps) response(v datatransfer.TypedVoucher) (*rt.DealResponse, error) {
	if v.Type != rt.DealResponseType {
		return nil, errors.New("an answer of type " + string(v.Type))
	}
	return rt.DealResponseFromNode(v.Voucher)
}

// inTuples is the dialect of the peers before that.
type inTuples struct{}

func (inTuples) proposal(p rt.DealProposal) (datatransfer.TypedVoucher, error) {
	old := tuples.Proposal{Payload: p.PayloadCID, ID: p.ID, Terms: tuples.Terms{
		Piece: p.PieceCID, PricePerByte: p.PricePerByte, UnsealPrice: p.UnsealPrice,
		Interval: p.PaymentInterval, IntervalIncrease: p.PaymentIntervalIncrease,
	}}
	if !p.Selector.IsNull() {
		b, err := voucher.MarshalNode(p.Selector.Node)
		if err != nil {
			return datatransfer.TypedVoucher{}, err
		}
		old.Selector = &cbg.Deferred{Raw: b}
	}
	return tupleVoucher(tuples.ProposalType, &old)
}

func (inTuples) payment(id rt.DealID, channel address.Address, v *paych.SignedVoucher) (datatransfer.TypedVoucher, error) {
	return tupleVoucher(tuples.PaymentType, &tuples.Payment{ID: id, Channel: channel, Voucher: v})
}

func (inTuples) response(v datatransfer.TypedVoucher) (*rt.DealResponse, error) {
	if v.Type != tuples.ResponseType {
		return nil, errors.New("an answer of type " + string(v.Type))
	}
	b, err := voucher.MarshalNode(v.Voucher)
	if err != nil {
		return nil, err
	}
	var old tuples.Response
	if err := old.UnmarshalCBOR(bytes.NewReader(b)); err != nil {
		return nil, err
	}
	return &rt.DealResponse{Status: old.Status, ID: old.ID, PaymentOwed: old.Owed, Message: old.Message}, nil
}

func tupleVoucher(name datatransfer.TypeIdentifier, v cbg.CBORMarshaler) (datatransfer.TypedVoucher, error) {
	var b bytes.Buffer
	if err := v.MarshalCBOR(&b); err != nil {
		return datatransfer.TypedVoucher{}, err
	}
	n, err := voucher.UnmarshalNode(b.Bytes())
	return datatransfer.TypedVoucher{Voucher: n, Type: name}, err
}

// TestSellToTupleClient: a client whose vouchers are tuples is answered in tuples,
// and buys as any other for exactly what the table says.
func TestSellToTupleClient(t *testing.T) {
	for _, s := range sales {
		t.Run(s.name, func(t *testing.T) {
			dag := newChain(t, s.sizes...)
			provider := newSeller(t, s.ask(), s.unseal != 0, dag.car(t))
			client := newLazyClient(t)
			client.dialect = inTuples{}
			deal := client.propose(within(t, 30*time.Second), provider.addr(), provider.payTo,
				rt.DealProposal{PayloadCID: dag.root, ID: 7, Params: params(s.price, s.unseal, s.interval, s.increase, s.selector(), nil)}, s.selector())
			deal.wait(within(t, 30*time.Second))
			checkBought(t, s, deal)
			checkSold(t, s, provider)
		})
	}
}

// TestTupleClientRefused: such a client proposes maps first, and tuples under the
// same number when that is refused. It is told why in the form in which it asked,
// nothing is left of it, and what it may have it then gets, without a selector and
// with a piece named.
func TestTupleClientRefused(t *testing.T) {
	dag := newChain(t, times(6, 1000)...)
	provider := newSeller(t, voucher.Ask{PricePerByte: 2, PaymentInterval: 10_000}, false, dag.car(t))
	info, ok := provider.goods.Store.Find(dag.root, nil)
	if !ok {
		t.Fatal("the piece is not found")
	}
	client := newLazyClient(t)
	for _, client.dialect = range []dialect{inMaps{}, inTuples{}} {
		deal := client.propose(within(t, 10*time.Second), provider.addr(), provider.payTo,
			rt.DealProposal{PayloadCID: dag.root, ID: 7, Params: params(1, 0, 10_000, 0, nil, &info.ID)}, wholeDAG)
		deal.wait(within(t, 20*time.Second))
		if !slices.Equal(deal.statuses, []rt.DealStatus{rt.DealStatusRejected}) || deal.message == "" || deal.received != 0 {
			t.Errorf("%T: want Rejected with a reason, not %q: %s", client.dialect, deal.message, deal)
		}
	}
	s := sale{sizes: times(6, 1000), price: 2, interval: 10_000, payments: []uint64{12_000}}
	deal := client.propose(within(t, 10*time.Second), provider.addr(), provider.payTo,
		rt.DealProposal{PayloadCID: dag.root, ID: 7, Params: params(2, 0, 10_000, 0, nil, &info.ID)}, wholeDAG)
	deal.wait(within(t, 20*time.Second))
	checkBought(t, s, deal)
	checkSold(t, s, provider)
}

// TestTuplesRefused: what is no proposal, in maps or tuples, ends at once, and no
// deal stands for it.
func TestTuplesRefused(t *testing.T) {
	dag := newChain(t, 1000)
	provider := newSeller(t, voucher.Ask{}, false, dag.car(t))
	client := newLazyClient(t)
	must(t, client.host.Connect(within(t, 10*time.Second), provider.addr()))
	good, err := inTuples{}.proposal(freeProposal(dag.root))
	must(t, err)
	asMaps, err := inMaps{}.proposal(freeProposal(dag.root))
	must(t, err)
	for name, bad := range map[string]datatransfer.TypedVoucher{
		"text":                     {Type: tuples.ProposalType, Voucher: basicnode.NewString("any tuple")},
		"maps called tuples":       {Type: tuples.ProposalType, Voucher: asMaps.Voucher},
		"tuples called maps":       {Type: rt.DealProposalType, Voucher: good.Voucher},
		"a payment for a proposal": {Type: tuples.PaymentType, Voucher: good.Voucher},
	} {
		events := newEvents()
		_, err := client.dt.OpenPullDataChannel(within(t, 20*time.Second), provider.host.ID(), bad, dag.root, wholeDAG, datatransfer.WithSubscriber(events.put))
		must(t, err)
		if st := lastState(t, events); st.Status() != datatransfer.Failed || st.Received() != 0 {
			t.Errorf("%s: %s after %d bytes", name, st.Status(), st.Received())
		}
	}
	if n := len(provider.market.ListDeals()); n != 0 {
		t.Errorf("%d deals on record", n)
	}
}

// lastState waits for the end of a channel.
func lastState(t testing.TB, q *events) datatransfer.ChannelState {
	t.Helper()
	ctx := within(t, 20*time.Second)
	for {
		for _, e := range q.take() {
			if s := e.st.Status(); s == datatransfer.Failed || s == datatransfer.Cancelled || s == datatransfer.Completed {
				return e.st
			}
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			t.Fatal("the channel stands open")
		}
	}
}

// TestSellTuplesThroughFaults: what breaks goes on in tuples.
func TestSellTuplesThroughFaults(t *testing.T) {
	for name, fault := range sellFaults {
		t.Run(name, func(t *testing.T) { sellThrough(t, broken, 3<<19, inTuples{}, fault) })
	}
}

// TestOlderTransports: what the libraries of peers before 2022 spoke and ours do
// not. Such peers can be answered a query, and buy or sell on a stream, no more.
func TestOlderTransports(t *testing.T) {
	provider := newSeller(t, voucher.Ask{}, false, newChain(t, 1000).car(t))
	client := newStock(t, newBlocks())
	must(t, client.host.Connect(within(t, 10*time.Second), provider.addr()))
	for p, want := range map[protocol.ID]bool{
		"/ipfs/graphsync/1.0.0": false, "/fil/datatransfer/1.0.0": false, "/fil/datatransfer/1.1.0": false,
		"/ipfs/graphsync/2.0.0": true, "/fil/datatransfer/1.2.0": true,
		"/fil/retrieval/qry/0.0.1": true, "/fil/retrieval/qry/1.0.0": true, "/fil/retrieval/0.0.1": true,
	} {
		s, err := client.host.NewStream(within(t, 10*time.Second), provider.host.ID(), p)
		if err == nil {
			_ = s.Reset() // it was only asked for
		}
		if (err == nil) != want {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// tupleKinds are the vouchers as tuples, as both sides have them. Ours is
// decoded and encoded again.
var tupleKinds = map[string]struct {
	ours   func(datamodel.Node) (datamodel.Node, error)
	write  func(encoder) (datamodel.Node, error)
	theirs func() cborType
}{
	"proposal": {
		again(voucher.Tuples.DecodeProposal, voucher.Tuples.EncodeProposal),
		func(v encoder) (datamodel.Node, error) {
			return voucher.Tuples.EncodeProposal(v.(voucher.DealProposal))
		},
		func() cborType { return new(tuples.Proposal) },
	},
	"response": {
		again(voucher.Tuples.DecodeResponse, voucher.Tuples.EncodeResponse),
		func(v encoder) (datamodel.Node, error) {
			return voucher.Tuples.EncodeResponse(v.(voucher.DealResponse))
		},
		func() cborType { return new(tuples.Response) },
	},
	"payment": {
		again(voucher.Tuples.DecodePayment, voucher.Tuples.EncodePayment),
		func(v encoder) (datamodel.Node, error) { return voucher.Tuples.EncodePayment(v.(voucher.DealPayment)) },
		func() cborType { return new(tuples.Payment) },
	},
}

func again[T any](decode func(datamodel.Node) (T, error), encode func(T) (datamodel.Node, error)) func(datamodel.Node) (datamodel.Node, error) {
	return func(n datamodel.Node) (datamodel.Node, error) {
		v, err := decode(n)
		if err != nil {
			return nil, err
		}
		return encode(v)
	}
}

// TestTupleBytes: what we write they read and write again as the same bytes, and
// what they write we do.
func TestTupleBytes(t *testing.T) {
	for name, k := range tupleKinds {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				node, err := k.write(drawVoucher(t, name))
				fatal(t, err)
				ours := marshal(t, node)
				_, theirs := theirBytes(t, k.theirs(), ours)
				same(t, "they write", theirs, ours)
				back, err := k.ours(unmarshal(t, theirs))
				fatal(t, err)
				same(t, "we write what we read", marshal(t, back), ours)
			})
		})
	}
}

// TestTupleRefusals: a tuple that they refuse we refuse.
func TestTupleRefusals(t *testing.T) {
	for name, k := range tupleKinds {
		t.Run(name, func(t *testing.T) {
			refused := 0
			rapid.Check(t, func(t *rapid.T) {
				node, err := k.write(drawVoucher(t, name))
				fatal(t, err)
				bad := marshal(t, damageTuple(t, node))
				if k.theirs().UnmarshalCBOR(bytes.NewReader(bad)) == nil {
					return // an equal or still a good one
				}
				refused++
				if _, err := k.ours(unmarshal(t, bad)); err == nil {
					t.Fatalf("they refuse %x, we read it", bad)
				}
			})
			if refused < 20 {
				t.Errorf("only %d of the damaged vouchers were refused", refused)
			}
		})
	}
}

// TestTupleQueryBytes: queries in tuples are the same bytes on both sides.
func TestTupleQueryBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := voucher.Query{PayloadCID: anyCID().Draw(t, "root"), QueryParams: voucher.QueryParams{PieceCID: anyOf(t, anyCID(), "piece")}}
		ours, err := q.MarshalTuple()
		fatal(t, err)
		_, theirs := theirBytes(t, new(tuples.Query), ours)
		same(t, "query", theirs, ours)
		back, err := voucher.UnmarshalQueryV0(theirs)
		fatal(t, err)
		again, err := back.MarshalTuple()
		fatal(t, err)
		same(t, "query read and written", again, ours)

		r := anyQueryResponse().Draw(t, "response")
		ours, err = r.MarshalTuple()
		fatal(t, err)
		_, theirs = theirBytes(t, new(tuples.Answer), ours)
		same(t, "response", theirs, ours)
		if got, err := voucher.UnmarshalQueryResponseV0(theirs); err != nil || got != r {
			t.Fatalf("read %+v, %v, want %+v", got, err, r)
		}
	})
}
