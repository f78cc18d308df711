package retrievalmarket

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/tollgraph/tollgraph/voucher"
)

// PaymentProtocol carries the payments of one deal on a stream of its own. The
// client writes payFrames, also before earlier ones are answered, the provider
// answers each with one ackFrame, in order; either may close. Frames are an unsigned varint length, at most
// maxPayFrame, and that many bytes of DAG-CBOR. Within data-transfer every
// payment would stay in a record that is rewritten for every block.
const PaymentProtocol protocol.ID = "/tollgraph/payment/1.0.0"

// maxPayFrame holds a payment with its voucher (about 200 bytes) or an answer
// with a message, with room to spare.
const maxPayFrame = 16 << 10

// payFrame is a payment, or a question after the account if it carries none.
type payFrame struct {
	id      voucher.DealID
	payment *voucher.DealPayment
	done    bool // the client has, or wants, nothing more
}

// ackFrame is the provider's account of the deal after a payFrame.
type ackFrame struct {
	id      voucher.DealID
	paid    voucher.Amount
	limit   voucher.Bytes
	settled bool // the deal is completed; nothing is owed
	message string
	refused voucher.Refusal // 0 if the payment was taken
	news    bool            // the deal is further than it was; not on the wire
}

func (f payFrame) node() (datamodel.Node, error) {
	payment := datamodel.Node(datamodel.Null)
	if f.payment != nil {
		n, err := f.payment.Encode()
		if err != nil {
			return nil, err
		}
		payment = n
	}
	return qp.BuildMap(basicnode.Prototype.Map, 3, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "ID", qp.Int(int64(f.id))) //nolint:gosec // carried as the same 64 bits
		qp.MapEntry(m, "Done", qp.Bool(f.done))
		qp.MapEntry(m, "Payment", qp.Node(payment))
	})
}

func parsePayFrame(n datamodel.Node) (payFrame, error) {
	var f payFrame
	id, err := intField(n, "ID")
	if err != nil {
		return f, err
	}
	f.id = voucher.DealID(id)
	done, err := n.LookupByString("Done")
	if err != nil {
		return f, err
	}
	if f.done, err = done.AsBool(); err != nil {
		return f, err
	}
	payment, err := n.LookupByString("Payment")
	if err != nil || payment.IsNull() {
		return f, err
	}
	p, err := voucher.DecodeDealPayment(payment)
	if err != nil {
		return f, err
	}
	f.payment = &p
	return f, nil
}

func (f ackFrame) node() (datamodel.Node, error) {
	return qp.BuildMap(basicnode.Prototype.Map, 6, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "ID", qp.Int(int64(f.id)))
		qp.MapEntry(m, "Paid", qp.String(f.paid.String()))
		qp.MapEntry(m, "Limit", qp.Int(int64(f.limit)))
		qp.MapEntry(m, "Message", qp.String(f.message))
		qp.MapEntry(m, "Refused", qp.Int(int64(f.refused)))
		qp.MapEntry(m, "Settled", qp.Bool(f.settled))
	})
}

func parseAckFrame(n datamodel.Node) (ackFrame, error) {
	var f ackFrame
	var errs [6]error
	var id, limit, refused int64
	id, errs[0] = intField(n, "ID")
	limit, errs[1] = intField(n, "Limit")
	refused, errs[2] = intField(n, "Refused")
	var paid string
	paid, errs[3] = stringField(n, "Paid")
	f.message, errs[4] = stringField(n, "Message")
	settled, err := n.LookupByString("Settled")
	if errs[5] = err; err == nil {
		f.settled, errs[5] = settled.AsBool()
	}
	if err := errors.Join(errs[:]...); err != nil {
		return ackFrame{}, err
	}
	f.id, f.limit, f.refused = voucher.DealID(id), voucher.Bytes(limit), voucher.Refusal(refused)
	return f, f.paid.UnmarshalText([]byte(paid))
}

func intField(n datamodel.Node, key string) (int64, error) {
	v, err := n.LookupByString(key)
	if err != nil {
		return 0, err
	}
	return v.AsInt()
}

func stringField(n datamodel.Node, key string) (string, error) {
	v, err := n.LookupByString(key)
	if err != nil {
		return "", err
	}
	return v.AsString()
}

func writeFrame(w io.Writer, n datamodel.Node, err error) error {
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	var body bytes.Buffer
	if err := dagcbor.Encode(n, &body); err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	frame := append(binary.AppendUvarint(nil, uint64(body.Len())), body.Bytes()...)
	_, err = w.Write(frame) // one write: one packet
	return err
}

var errFrameSize = fmt.Errorf("frame longer than %d bytes", maxPayFrame)

func readFrame(r *bufio.Reader) (datamodel.Node, error) {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if size > maxPayFrame {
		return nil, errFrameSize
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("frame cut short: %w", err)
	}
	nb := basicnode.Prototype.Any.NewBuilder()
	if err := dagcbor.Decode(nb, bytes.NewReader(body)); err != nil {
		return nil, fmt.Errorf("decode frame: %w", err)
	}
	n := nb.Build()
	if n.Kind() != datamodel.Kind_Map {
		return nil, errors.New("decode frame: not a map")
	}
	return n, nil
}
