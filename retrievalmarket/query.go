package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

const (
	// maxQuery bounds a query and its answer: a selector at most.
	maxQuery = 256 << 10
	// queryTimeout bounds one question and its answer, quoting included.
	queryTimeout = 30 * time.Second
	// quoteTimeout bounds the walk behind an exact quote.
	quoteTimeout = 10 * time.Second
	// quotesAtOnce bounds how many walks run side by side, of which one peer has one.
	quotesAtOnce = 2
	// quotesKept bounds the quotes that are remembered.
	quotesKept = 4096
)

// serveQuery answers one query in maps.
func (p *Provider) serveQuery(s network.Stream) {
	p.answer(s, voucher.UnmarshalQuery, voucher.QueryResponse.MarshalCBORMap)
}

// serveQueryV0 answers one query in tuples.
func (p *Provider) serveQueryV0(s network.Stream) {
	p.answer(s, voucher.UnmarshalQueryV0, voucher.QueryResponse.MarshalTuple)
}

func (p *Provider) answer(s network.Stream, decode func([]byte) (Query, error), encode func(QueryResponse) ([]byte, error)) {
	defer func() {
		if r := recover(); r != nil {
			p.log.Error("query panicked", "err", r)
			_ = s.Reset() // the peer sees a broken stream
		}
	}()
	ctx, cancel, err := p.hear(s)
	if err != nil {
		_ = s.Reset() // the peer sees a broken stream
		return
	}
	defer cancel()
	body, err := voucher.ReadMessage(s, maxQuery)
	if err != nil {
		_ = s.Reset() // nothing to answer to
		return
	}
	resp := QueryResponse{Status: voucher.QueryResponseError}
	if q, err := decode(body); err != nil {
		resp.Message = err.Error()
	} else {
		resp = p.Answer(ctx, s.Conn().RemotePeer(), q)
	}
	out, err := encode(resp)
	if err != nil {
		p.log.Error("encode query response", "err", err)
		_ = s.Reset() // the peer sees a broken stream
		return
	}
	if _, err := s.Write(out); err != nil {
		_ = s.Reset() // the peer went away
		return
	}
	_ = s.Close() // everything is written; the peer sees the end
}

// hear returns when it is a peer's turn to ask something on a stream, with the time
// that question and answer may take.
func (p *Provider) hear(s network.Stream) (context.Context, context.CancelFunc, error) {
	if err := s.SetDeadline(time.Now().Add(queryTimeout)); err != nil {
		return nil, nil, fmt.Errorf("no deadline, no service: %w", err)
	}
	p.mu.Lock()
	ctx := p.ctx
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	if err := p.asks.wait(ctx, s.Conn().RemotePeer()); err != nil {
		cancel()
		return nil, nil, fmt.Errorf("it asks too often: %w", err)
	}
	return ctx, cancel, nil
}

// Answer says what the provider has of a payload and what it charges from for
// it. The size of the selection is exact, or absent if it took too long to
// find out.
func (p *Provider) Answer(ctx context.Context, from peer.ID, q Query) QueryResponse {
	piece, ok := p.cfg.Pieces.Find(q.PayloadCID, q.QueryParams.PieceCID)
	if !ok {
		no := voucher.QueryItemUnavailable
		return QueryResponse{Status: voucher.QueryResponseUnavailable, PieceCIDFound: no, PaymentAddress: p.cfg.PayTo,
			PayloadCIDFound: &no, Message: fmt.Sprintf("%s is not here", q.PayloadCID)}
	}
	ask := p.askFor(from, DealProposal{PayloadCID: q.PayloadCID, Params: Params{PieceCID: q.QueryParams.PieceCID, Selector: q.QueryParams.Selector}}, piece)
	found := voucher.QueryItemAvailable
	resp := QueryResponse{
		Status: voucher.QueryResponseAvailable, Size: piece.Size, PaymentAddress: p.cfg.PayTo,
		MinPricePerByte: ask.PricePerByte, UnsealPrice: ask.UnsealPrice,
		MaxPaymentInterval: ask.PaymentInterval, MaxPaymentIntervalIncrease: ask.PaymentIntervalIncrease,
		PayloadCIDFound: &found,
	}
	if most := q.QueryParams.MaxPricePerByte; most != nil && *most < ask.PricePerByte {
		resp.Message = fmt.Sprintf("the price is %d attoFIL per byte, above the maximum of %d in the query", ask.PricePerByte, *most)
	}
	if p.cfg.CreditLine != nil && !ask.Terms().Free() {
		resp.CreditLine = p.cfg.CreditLine()
	}
	p.quote(ctx, &resp, from, q, piece)
	return resp
}

// quote fills in the size of the selection.
func (p *Provider) quote(ctx context.Context, resp *QueryResponse, from peer.ID, q Query, piece Piece) {
	sel := q.QueryParams.Selector
	if err := selectors.Check(sel, p.cfg.Limits); err != nil {
		no := voucher.QueryItemUnavailable
		resp.SelectorFound, resp.Message = &no, err.Error()
		return
	}
	count, err := p.quotes.measure(ctx, from, piece, q.PayloadCID, sel)
	status := voucher.QueryItemAvailable
	switch {
	case err != nil:
		status = voucher.QueryItemUnknown
		p.log.Debug("quote", "root", q.PayloadCID, "err", err)
	case len(count.Missing) > 0:
		status = voucher.QueryItemUnavailable
		resp.Message = fmt.Sprintf("%d or more blocks of the selection are not here, %s among them", len(count.Missing), count.Missing[0])
	default:
		size := Bytes(count.Bytes)
		resp.ExpectedPayloadSize, resp.ExpectedBlocks = &size, &count.Blocks
	}
	resp.SelectorFound = &status
}

// quoter measures selections and remembers them: pieces do not change.
type quoter struct {
	pieces   Pieces
	maxLinks uint64
	slots    chan struct{}

	mu    sync.Mutex
	known map[string]selectors.Count // guarded by mu
	turns map[peer.ID]*quoteTurn     // guarded by mu; of peers that wait for a walk
}

// quoteTurn is what one peer's quotes wait for.
type quoteTurn struct {
	slot  chan struct{} // capacity 1
	users int           // guarded by quoter.mu
}

func newQuoter(pieces Pieces, maxLinks uint64) *quoter {
	return &quoter{pieces: pieces, maxLinks: maxLinks, slots: make(chan struct{}, quotesAtOnce), known: make(map[string]selectors.Count), turns: make(map[peer.ID]*quoteTurn)}
}

func (q *quoter) measure(ctx context.Context, from peer.ID, piece Piece, root cid.Cid, sel datamodel.Node) (selectors.Count, error) {
	canon, err := selectors.Canonical(sel)
	if err != nil {
		return selectors.Count{}, err
	}
	key := piece.ID.KeyString() + root.KeyString() + string(canon)
	q.mu.Lock()
	count, ok := q.known[key]
	q.mu.Unlock()
	if ok {
		return count, nil
	}
	ctx, cancel := context.WithTimeout(ctx, quoteTimeout)
	defer cancel()
	done, err := q.turn(ctx, from)
	if err != nil {
		return selectors.Count{}, err
	}
	defer done()
	ls := withUnixFS(q.pieces.LinkSystem(piece.ID))
	count, err = selectors.MeasureWith(ctx, ls, root, sel, q.maxLinks, selectors.Sizer(q.pieces.BlockSize))
	if err != nil {
		return count, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.known) >= quotesKept {
		clear(q.known) // pieces are few and walks are cheap: start again
	}
	q.known[key] = count
	return count, nil
}

// turn waits until one more walk may run for a peer: its own turn first, since it must
// not hold the others'. done is to be called when the walk is over.
func (q *quoter) turn(ctx context.Context, from peer.ID) (done func(), err error) {
	q.mu.Lock()
	t := q.turns[from]
	if t == nil {
		t = &quoteTurn{slot: make(chan struct{}, 1)}
		q.turns[from] = t
	}
	t.users++
	q.mu.Unlock()
	var taken []chan struct{}
	done = func() {
		for _, slot := range taken {
			<-slot
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(q.turns, from)
		}
	}
	for _, slot := range []chan struct{}{t.slot, q.slots} {
		select {
		case slot <- struct{}{}:
			taken = append(taken, slot)
		case <-ctx.Done():
			done()
			return nil, ctx.Err()
		}
	}
	return done, nil
}

// askPeer asks a provider that is connected over the newest query protocol that it
// speaks. One that has not said yet what that is is asked in the newest, and once more
// if it does not take that: so it costs a round trip less on a new connection.
func askPeer(ctx context.Context, h host.Host, to peer.ID, q Query) (QueryResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if said, err := h.Peerstore().GetProtocols(to); err == nil && len(said) == 0 {
		if s, err := openUnasked(ctx, h, to, voucher.QueryProtocol); err == nil {
			resp, err := askOn(ctx, s, q)
			switch {
			case err == nil:
				return resp, nil
			case ctx.Err() != nil: // it took the question
				return QueryResponse{}, fmt.Errorf("query %s: %w", to, err)
			}
		}
	}
	s, err := h.NewStream(ctx, to, voucher.QueryProtocol, voucher.QueryProtocolV0)
	if err != nil {
		return QueryResponse{}, fmt.Errorf("query %s: %w", to, err)
	}
	resp, err := askOn(ctx, s, q)
	if err != nil {
		return QueryResponse{}, fmt.Errorf("query %s: %w", to, err)
	}
	return resp, nil
}

// askOn asks on a stream, which it closes.
func askOn(ctx context.Context, s network.Stream, q Query) (QueryResponse, error) {
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() }) // ends the read below
	defer stop()
	encode, decode := Query.MarshalCBORMap, voucher.UnmarshalQueryResponse
	if s.Protocol() == voucher.QueryProtocolV0 {
		encode, decode = Query.MarshalTuple, voucher.UnmarshalQueryResponseV0
	}
	body, err := encode(q)
	if err != nil {
		return QueryResponse{}, err
	}
	if _, err := s.Write(body); err != nil {
		return QueryResponse{}, err
	}
	answer, err := voucher.ReadMessage(s, maxQuery)
	if err != nil {
		return QueryResponse{}, fmt.Errorf("no answer: %w", errors.Join(err, ctx.Err()))
	}
	return decode(answer)
}

// openUnasked opens a stream to a peer that is connected without waiting until that has
// said what it speaks. Whether it speaks the protocol shows when the stream is read.
func openUnasked(ctx context.Context, h host.Host, to peer.ID, proto protocol.ID) (network.Stream, error) {
	s, err := h.Network().NewStream(network.WithNoDial(ctx, "connected"), to)
	if err != nil {
		return nil, err
	}
	if err := s.SetProtocol(proto); err != nil {
		_ = s.Reset() // nothing was sent
		return nil, err
	}
	return &unaskedStream{s, multistream.NewMSSelect(s, proto)}, nil
}

// unaskedStream is a stream whose protocol is negotiated along with its data.
type unaskedStream struct {
	network.Stream
	lazy multistream.LazyConn
}

func (s *unaskedStream) Read(b []byte) (int, error)  { return s.lazy.Read(b) }
func (s *unaskedStream) Write(b []byte) (int, error) { return s.lazy.Write(b) }
