package main

import (
	"fmt"
	"strings"

	"github.com/filecoin-project/go-address"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v3"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// text is a flag that can also be given in the environment, as TOLLGRAPH_NAME.
func text(name, value, usage string) *cli.StringFlag {
	return &cli.StringFlag{Name: name, Value: value, Usage: usage, Sources: cli.EnvVars(envName(name))}
}

func envName(flag string) string {
	return "TOLLGRAPH_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// reader reads a command's flags and keeps the first error.
type reader struct {
	*cli.Command
	err error
}

func (r *reader) fail(name string, err error) {
	if r.err == nil {
		r.err = usagef("--%s %q: %w", name, r.String(name), err)
	}
}

// bytes reads a size. A flag that is empty is zero.
func (r *reader) bytes(name string) voucher.Bytes {
	if r.String(name) == "" {
		return 0
	}
	b, err := voucher.ParseBytes(r.String(name))
	if err != nil {
		r.fail(name, err)
	}
	return b
}

// amount reads money. A flag that is empty is none.
func (r *reader) amount(name string) voucher.Amount {
	if r.String(name) == "" {
		return voucher.Amount{}
	}
	a, err := voucher.ParseAmount(r.String(name))
	if err != nil {
		r.fail(name, err)
	}
	return a
}

// price reads a price per GiB. A flag that is empty is free.
func (r *reader) price(name string) voucher.Price {
	if r.String(name) == "" {
		return 0
	}
	p, err := voucher.ParsePricePerGiB(r.String(name))
	if err != nil {
		r.fail(name, err)
	}
	return p
}

// provider reads the address of a provider.
func (r *reader) provider() market.RetrievalPeer {
	s := r.String("provider")
	if s == "" {
		if r.err == nil {
			r.err = usagef("name the provider with --provider MULTIADDR, such as /ip4/127.0.0.1/tcp/4100/p2p/12D3KooW… (serve prints it)")
		}
		return market.RetrievalPeer{}
	}
	info, err := peer.AddrInfoFromString(s)
	if err != nil {
		r.fail("provider", fmt.Errorf("%w: give it whole, with /p2p/ID at its end, as serve prints it", err))
		return market.RetrievalPeer{}
	}
	return market.RetrievalPeer{AddrInfo: *info, Address: address.Undef}
}

// count is so many things for people.
func count[N int | uint64](n N, one string) string {
	if n != 1 {
		one += "s"
	}
	return fmt.Sprintf("%d %s", n, one)
}

// target is what a user names: a root and what to take from it.
type target struct {
	root cid.Cid
	path string // without slashes around it
}

func (t target) String() string {
	if t.path == "" {
		return t.root.String()
	}
	return t.root.String() + "/" + t.path
}

// target reads the one argument, CID[/path].
func (r *reader) target() target {
	if r.NArg() != 1 {
		if r.err == nil {
			r.err = usagef("give exactly one CID[/path], not %d arguments", r.NArg())
		}
		return target{}
	}
	t, err := parseTarget(r.Args().First())
	if err != nil && r.err == nil {
		r.err = err
	}
	return t
}

// parseTarget reads CID[/path], with ipfs:// or /ipfs/ before it or not.
func parseTarget(s string) (target, error) {
	rest := strings.TrimPrefix(strings.TrimPrefix(s, "ipfs://"), "/ipfs/")
	first, path, _ := strings.Cut(rest, "/")
	root, err := cid.Decode(first)
	if err != nil {
		return target{}, usagef("%q is not a CID or CID/path: %w; copy it whole, as serve and car create print it", s, err)
	}
	return target{root, strings.Trim(path, "/")}, nil
}
