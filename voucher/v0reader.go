package voucher

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// ReaderV0 reads the messages of a DealProtocolV0 stream. It takes no more
// memory than the largest block, however many a response holds. Its errors wrap
// io.EOF where the stream ends between messages, ErrMalformed or ErrTooLarge, or
// are the stream's. It is for one goroutine.
type ReaderV0 struct {
	r      *bufio.Reader
	blocks int // of the current response, that were not read
}

// NewReaderV0 reads from r, and may read ahead.
func NewReaderV0(r io.Reader) *ReaderV0 { return &ReaderV0{r: bufio.NewReaderSize(r, 64<<10)} }

// Proposal reads the first message of a client.
func (r *ReaderV0) Proposal() (ProposalV0, error) {
	b, err := ReadMessage(r.r, MaxEncoded)
	if err != nil {
		return ProposalV0{}, err
	}
	return UnmarshalProposalV0(b)
}

// Payment reads a message that a client sends behind its proposal.
func (r *ReaderV0) Payment() (DealPayment, error) {
	b, err := ReadMessage(r.r, maxPaymentV0)
	if err != nil {
		return DealPayment{}, err
	}
	return UnmarshalDealPaymentV0(b)
}

// Response reads a message of a provider up to its blocks, and returns how many
// those are. Each is to be read with Block before the next Response.
func (r *ReaderV0) Response() (d DealResponse, blocks int, err error) {
	if r.blocks != 0 {
		return d, 0, fmt.Errorf("read response 0.0.1: %d blocks of the last one are left", r.blocks)
	}
	if d, err = r.head(); err != nil {
		return d, 0, err
	}
	if blocks, err = r.list(MaxBlocksV0); err != nil {
		return d, 0, inside(err)
	}
	r.blocks = blocks
	return d, blocks, nil
}

// head reads the fields before the blocks.
func (r *ReaderV0) head() (DealResponse, error) {
	fields, err := r.list(5)
	if err != nil {
		return DealResponse{}, err
	}
	if fields != 5 {
		return DealResponse{}, fmt.Errorf("read response 0.0.1: %d fields instead of 5: %w", fields, ErrMalformed)
	}
	tuple := []byte{4<<5 | 4}
	for range 4 {
		item, err := ReadMessage(r.r, MaxMessage+9)
		if err != nil {
			return DealResponse{}, inside(err)
		}
		tuple = append(tuple, item...)
	}
	n, err := UnmarshalNode(tuple)
	if err != nil {
		return DealResponse{}, err
	}
	in := readTuple("response 0.0.1", n, "Status", "ID", "PaymentOwed", "Message")
	number := in.uint("Status")
	status, ok := fromV0[number]
	if !ok {
		in.fail("Status", fmt.Errorf("%d is not what a provider says", number))
	}
	d := DealResponse{
		Status: status, ID: DealID(in.uint("ID")), PaymentOwed: in.amount("PaymentOwed"), Message: in.text("Message"),
	}
	if err := in.finish(); err != nil {
		return DealResponse{}, err
	}
	return d, nil
}

// Block reads the next block of the current response; io.EOF if there is none.
// It is not verified.
func (r *ReaderV0) Block() (Block, error) {
	if r.blocks == 0 {
		return Block{}, io.EOF
	}
	fields, err := r.list(2)
	if err != nil {
		return Block{}, inside(err)
	}
	if fields != 2 {
		return Block{}, fmt.Errorf("read block: %d fields instead of 2: %w", fields, ErrMalformed)
	}
	var b Block
	if b.Prefix, err = r.bytes(maxPrefix); err != nil {
		return Block{}, err
	}
	if b.Data, err = r.bytes(MaxBlockV0); err != nil {
		return Block{}, err
	}
	r.blocks--
	return b, nil
}

// list reads the head of a list of at most atMost items.
func (r *ReaderV0) list(atMost int) (int, error) {
	s := scanner{r: r.r, atMost: atMost + 9}
	n, err := s.head()
	if err != nil {
		if len(s.item) > 0 {
			err = inside(err)
		}
		return 0, err
	}
	if s.item[0]>>5 != 4 {
		return 0, fmt.Errorf("CBOR item %#x instead of a list: %w", s.item[0], ErrMalformed)
	}
	if n > atMost {
		return 0, fmt.Errorf("list of %d, %d at most: %w", n, atMost, ErrTooLarge)
	}
	return n, nil
}

// bytes reads a string of at most atMost bytes.
func (r *ReaderV0) bytes(atMost int) ([]byte, error) {
	s := scanner{r: r.r, atMost: atMost + 9}
	if _, err := s.head(); err != nil {
		return nil, inside(err)
	}
	first := s.item[0]
	if first>>5 != 2 {
		return nil, fmt.Errorf("CBOR item %#x instead of bytes: %w", first, ErrMalformed)
	}
	head := 1
	if info := first & 0x1f; info >= 24 {
		head += 1 << (info - 24)
	}
	b := s.item[head:]
	if len(b) > atMost {
		return nil, fmt.Errorf("%d bytes, %d at most: %w", len(b), atMost, ErrTooLarge)
	}
	return b, nil
}

// inside is err within a message, where the stream must not end.
func inside(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
