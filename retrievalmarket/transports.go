package retrievalmarket

import (
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"

	"github.com/tollgraph/tollgraph/voucher"
)

// TransportsProtocol is on what a client asks over which protocols deals can be
// made. It writes nothing and reads one dag-cbor value:
//
//	{"Protocols": [{"Name": "libp2p", "Addresses": [multiaddr as bytes, …]}, …]}
//
// "libp2p" stands for data-transfer over graphsync. Clients of the existing
// network that fetch for free ask this first.
const TransportsProtocol = "/fil/retrieval/transports/1.0.0"

// serveTransports answers where deals can be made: here.
func (p *Provider) serveTransports(s network.Stream) {
	if err := p.writeTransports(s); err != nil {
		p.log.Debug("transports", "peer", s.Conn().RemotePeer(), "err", err)
		_ = s.Reset() // the peer sees a broken stream
		return
	}
	_ = s.Close() // everything is written; the peer sees the end
}

func (p *Provider) writeTransports(s network.Stream) error {
	_, cancel, err := p.hear(s)
	if err != nil {
		return err
	}
	defer cancel()
	node, err := transports(p.cfg.Host.Addrs())
	if err != nil {
		return err
	}
	answer, err := voucher.MarshalNode(node)
	if err != nil {
		return err
	}
	_, err = s.Write(answer)
	return err
}

// transports is the answer for a host that listens on addrs.
func transports(addrs []multiaddr.Multiaddr) (datamodel.Node, error) {
	return qp.BuildMap(basicnode.Prototype.Any, 1, func(answer datamodel.MapAssembler) {
		qp.MapEntry(answer, "Protocols", qp.List(1, func(protocols datamodel.ListAssembler) {
			qp.ListEntry(protocols, qp.Map(2, func(libp2p datamodel.MapAssembler) {
				qp.MapEntry(libp2p, "Name", qp.String("libp2p"))
				qp.MapEntry(libp2p, "Addresses", qp.List(int64(len(addrs)), func(list datamodel.ListAssembler) {
					for _, a := range addrs {
						qp.ListEntry(list, qp.Bytes(a.Bytes()))
					}
				}))
			}))
		}))
	})
}
