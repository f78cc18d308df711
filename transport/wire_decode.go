package transport

import (
	"bytes"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime/datamodel"
)

// parsedMessage is a message whose blocks are not hashed yet. Its blocks are
// slices of the buffer it was parsed from.
type parsedMessage struct {
	requests  map[graphsync.RequestID]gsmsg.GraphSyncRequest
	responses map[graphsync.RequestID]gsmsg.GraphSyncResponse
	blocks    []parsedBlock
}

type parsedBlock struct {
	prefix cid.Prefix
	data   []byte
}

// parseMessage reads a message without its varint. It accepts what the stock
// decoder accepts, but for ErrMessageLimit and ErrMessageForm, and hostile
// input costs memory in proportion to len(buf) plus the bounds in wire.go.
func parseMessage(buf []byte) (parsedMessage, error) {
	p := messageParser{cborReader: cborReader{buf: buf}}
	if err := p.message(); err != nil {
		return parsedMessage{}, err
	}
	if p.pos != len(buf) {
		return parsedMessage{}, fmt.Errorf("%w: %d bytes after its end", errMalformed, len(buf)-p.pos)
	}
	return p.out, nil
}

type messageParser struct {
	cborReader
	out    parsedMessage
	prefix []byte // the last block's, which the next one's mostly equals
	parsed cid.Prefix
}

// field is one entry of a map in struct form.
type field struct {
	key  string // on the wire
	long string // in the schema
	read func() error
}

// fields reads a map whose keys are among those of fs, each at most once, and
// reports which were there as a bit set in the order of fs.
func (p *messageParser) fields(what string, fs []field) (seen uint, err error) {
	n, err := p.count(majorMap, what, len(fs))
	if err != nil {
		return 0, err
	}
	for ; n > 0; n-- {
		key, err := p.text(what + " key")
		if err != nil {
			return 0, err
		}
		i, err := findField(what, fs, key)
		if err != nil {
			return 0, err
		}
		if seen&(1<<i) != 0 {
			return 0, fmt.Errorf("%w: %s has %q twice", errMalformed, what, key)
		}
		seen |= 1 << i
		if err := fs[i].read(); err != nil {
			return 0, err
		}
	}
	return seen, nil
}

func findField(what string, fs []field, key []byte) (int, error) {
	for i := range fs {
		if fs[i].key == string(key) {
			return i, nil
		}
		if fs[i].long == string(key) {
			return 0, fmt.Errorf("%w: %s has field %q, not %q", ErrMessageForm, what, key, fs[i].key)
		}
	}
	return 0, fmt.Errorf("%w: %s has no field %q", errMalformed, what, key)
}

func (p *messageParser) message() error {
	seen, err := p.fields("message root", []field{{"gs2", "GraphSyncMessage", func() error {
		_, err := p.fields("message", []field{
			{"blk", "blocks", p.blocks},
			{"req", "requests", p.requests},
			{"rsp", "responses", p.responses},
		})
		return err
	}}})
	if err == nil && seen == 0 {
		return fmt.Errorf("%w: empty root", errMalformed)
	}
	return err
}

func (p *messageParser) blocks() error {
	n, err := p.count(majorArray, "blocks", MaxMessageBlocks)
	if err != nil {
		return err
	}
	p.out.blocks = make([]parsedBlock, 0, n)
	for ; n > 0; n-- {
		if err := p.block(); err != nil {
			return err
		}
	}
	return nil
}

func (p *messageParser) block() error {
	if err := p.pair("block"); err != nil {
		return err
	}
	prefix, err := p.bytes("block prefix")
	if err != nil {
		return err
	}
	data, err := p.bytes("block data")
	if err != nil {
		return err
	}
	if p.prefix == nil || !bytes.Equal(prefix, p.prefix) {
		if p.parsed, err = cid.PrefixFromBytes(prefix); err != nil {
			return fmt.Errorf("block prefix: %w", err)
		}
		p.prefix = prefix
	}
	p.out.blocks = append(p.out.blocks, parsedBlock{prefix: p.parsed, data: data})
	return nil
}

// pair reads the head of a list that must have two elements.
func (p *messageParser) pair(what string) error {
	n, err := p.expect(majorArray, what)
	if err == nil && n != 2 {
		return fmt.Errorf("%w: %s has %d elements, not 2", errMalformed, what, n)
	}
	return err
}

func (p *messageParser) requests() error {
	n, err := p.count(majorArray, "requests", MaxMessageParts)
	if err != nil {
		return err
	}
	p.out.requests = make(map[graphsync.RequestID]gsmsg.GraphSyncRequest, min(n, 16))
	for ; n > 0; n-- {
		r, err := p.request()
		if err != nil {
			return err
		}
		p.out.requests[r.ID()] = r
	}
	return nil
}

func (p *messageParser) request() (gsmsg.GraphSyncRequest, error) {
	var (
		id       graphsync.RequestID
		ext      []graphsync.ExtensionData
		priority graphsync.Priority
		selector datamodel.Node
		root     cid.Cid
		kind     graphsync.RequestType
	)
	seen, err := p.fields("request", []field{
		{"id", "id", func() (err error) { id, err = p.requestID(); return }},
		{"type", "requestType", func() (err error) { kind, err = p.requestType(); return }},
		{"ext", "extensions", func() (err error) { ext, err = p.extensions(); return }},
		{"pri", "priority", func() (err error) { priority, err = p.priority(); return }},
		{"sel", "selector", func() (err error) { selector, err = p.selector(); return }},
		{"root", "root", func() (err error) { root, err = p.cid("request root"); return }},
	})
	if err != nil {
		return gsmsg.GraphSyncRequest{}, err
	}
	if seen&3 != 3 {
		return gsmsg.GraphSyncRequest{}, fmt.Errorf("%w: request without id or type", errMalformed)
	}
	switch kind {
	case graphsync.RequestTypeCancel:
		return gsmsg.NewCancelRequest(id), nil
	case graphsync.RequestTypeUpdate:
		return gsmsg.NewUpdateRequest(id, ext...), nil
	}
	return gsmsg.NewRequest(id, root, selector, priority, ext...), nil
}

func (p *messageParser) responses() error {
	n, err := p.count(majorArray, "responses", MaxMessageParts)
	if err != nil {
		return err
	}
	p.out.responses = make(map[graphsync.RequestID]gsmsg.GraphSyncResponse, min(n, 16))
	for ; n > 0; n-- {
		r, err := p.response()
		if err != nil {
			return err
		}
		p.out.responses[r.RequestID()] = r
	}
	return nil
}

func (p *messageParser) response() (gsmsg.GraphSyncResponse, error) {
	var (
		id     graphsync.RequestID
		status graphsync.ResponseStatusCode
		meta   []gsmsg.GraphSyncLinkMetadatum
		ext    []graphsync.ExtensionData
	)
	seen, err := p.fields("response", []field{
		{"reqid", "id", func() (err error) { id, err = p.requestID(); return }},
		{"stat", "status", func() (err error) { status, err = p.status(); return }},
		{"meta", "metadata", func() (err error) { meta, err = p.metadata(); return }},
		{"ext", "extensions", func() (err error) { ext, err = p.extensions(); return }},
	})
	if err != nil {
		return gsmsg.GraphSyncResponse{}, err
	}
	if seen&3 != 3 {
		return gsmsg.GraphSyncResponse{}, fmt.Errorf("%w: response without id or status", errMalformed)
	}
	return gsmsg.NewResponse(id, status, meta, ext...), nil
}
