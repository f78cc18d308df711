package transport

import (
	"bytes"
	"fmt"
	"math"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// The values of the fields of requests and responses.

func (p *messageParser) requestID() (graphsync.RequestID, error) {
	b, err := p.bytes("request id")
	if err != nil {
		return graphsync.RequestID{}, err
	}
	return graphsync.ParseRequestID(b)
}

func (p *messageParser) requestType() (graphsync.RequestType, error) {
	word, err := p.text("request type")
	if err != nil {
		return "", err
	}
	for kind, w := range requestTypeWord {
		if w == string(word) {
			return kind, nil
		}
	}
	return "", fmt.Errorf("%w: request type %q", errMalformed, word)
}

// priority wraps around beyond 32 bits, as the stock decoder does.
func (p *messageParser) priority() (graphsync.Priority, error) {
	major, arg, err := p.head()
	switch {
	case err != nil:
		return 0, err
	case major == majorTag:
		return 0, fmt.Errorf("%w: tag %d on priority", ErrMessageForm, arg)
	case major > majorNegInt || major == majorNegInt && arg > math.MaxInt64:
		return 0, fmt.Errorf("%w: priority is not an integer", errMalformed)
	case major == majorNegInt:
		return graphsync.Priority(-1 - int64(arg)), nil
	}
	return graphsync.Priority(int64(arg)), nil
}

func (p *messageParser) status() (graphsync.ResponseStatusCode, error) {
	n, err := p.expect(majorUint, "response status")
	if err != nil {
		return 0, err
	}
	if n <= math.MaxInt32 {
		code := graphsync.ResponseStatusCode(n)
		if _, ok := graphsync.ResponseCodeToName[code]; ok {
			return code, nil
		}
	}
	return 0, fmt.Errorf("%w: response status %d", errMalformed, n)
}

func (p *messageParser) metadata() ([]gsmsg.GraphSyncLinkMetadatum, error) {
	n, err := p.count(majorArray, "metadata", math.MaxInt)
	if err != nil {
		return nil, err
	}
	// An entry takes at least 10 bytes, whatever the peer says.
	meta := make([]gsmsg.GraphSyncLinkMetadatum, 0, min(n, (len(p.buf)-p.pos)/10))
	for ; n > 0; n-- {
		if err := p.pair("metadata entry"); err != nil {
			return nil, err
		}
		c, err := p.cid("metadata link")
		if err != nil {
			return nil, err
		}
		action, err := p.action()
		if err != nil {
			return nil, err
		}
		meta = append(meta, gsmsg.GraphSyncLinkMetadatum{Link: c, Action: action})
	}
	return meta, nil
}

func (p *messageParser) action() (graphsync.LinkAction, error) {
	word, err := p.text("link action")
	if err != nil {
		return "", err
	}
	if len(word) == 1 {
		switch word[0] {
		case 'p':
			return graphsync.LinkActionPresent, nil
		case 'd':
			return graphsync.LinkActionDuplicateNotSent, nil
		case 'm':
			return graphsync.LinkActionMissing, nil
		case 's':
			return graphsync.LinkActionDuplicateDAGSkipped, nil
		}
	}
	return "", fmt.Errorf("%w: link action %q", errMalformed, word)
}

func (p *messageParser) cid(what string) (cid.Cid, error) {
	b, err := p.link(what)
	if err != nil {
		return cid.Undef, err
	}
	c, err := cid.Cast(b)
	if err != nil {
		return cid.Undef, fmt.Errorf("%s: %w", what, err)
	}
	return c, nil
}

// Depths of the values that the codec reads, counted from the root as 0.
const (
	selectorDepth  = 4
	extensionDepth = 5
)

func (p *messageParser) selector() (datamodel.Node, error) {
	n, err := p.node("selector", selectorDepth)
	if err == nil && n == nil {
		return nil, fmt.Errorf("%w: selector is null", errMalformed)
	}
	return n, err
}

func (p *messageParser) extensions() ([]graphsync.ExtensionData, error) {
	n, err := p.count(majorMap, "extensions", MaxMessageNodes)
	if err != nil {
		return nil, err
	}
	var ext []graphsync.ExtensionData
	seen := make(map[string]struct{}, min(n, 8))
	for ; n > 0; n-- {
		key, err := p.text("extension name")
		if err != nil {
			return nil, err
		}
		if _, twice := seen[string(key)]; twice {
			return nil, fmt.Errorf("%w: extension %q twice", errMalformed, key)
		}
		value, err := p.node("extension value", extensionDepth)
		if err != nil {
			return nil, err
		}
		seen[string(key)] = struct{}{}
		ext = append(ext, graphsync.ExtensionData{Name: graphsync.ExtensionName(key), Data: value})
	}
	return ext, nil
}

// node reads arbitrary IPLD at the given depth; null is nil.
func (p *messageParser) node(what string, depth int) (datamodel.Node, error) {
	b, err := p.skip(depth)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	builder := basicnode.Prototype.Any.NewBuilder()
	if err := dagcbor.Decode(builder, bytes.NewReader(b)); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if n := builder.Build(); !n.IsNull() {
		return n, nil
	}
	return nil, nil
}
