package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

// asChild is set in the environment of a process that is one side of a trade.
// It reads a childSpec and then orders from standard input, a JSON value each,
// answers each with a childAnswer on standard output, and ends with its input.
const asChild = "TOLLGRAPH_BENCH_CHILD"

// childSpec says which side a process is.
type childSpec struct {
	Rival    string // stream-sha256, free, paid or paid-strict
	Provider string // multiaddr of the provider to buy from; empty: it sells
	Dir      string // for its files
	Case     benchCase
	CAR      string // what is sold: a CAR or a folder of them
	Root     string
	Bytes    uint64 // of one root
}

// childOrder is one thing to do: fetch the roots all at once, or nothing. The
// answer says what memory was used since the last order.
type childOrder struct {
	Roots []string
}

// childAnswer is what came of it.
type childAnswer struct {
	Error string
	Addr  string  // of a provider, once
	RSS   uint64  // bytes resident now
	Peak  uint64  // most bytes resident since the last order
	CPU   float64 // seconds of processor since the last order
	Deals []childDeal
}

// childDeal is one fetch.
type childDeal struct {
	Seconds   float64
	FirstByte float64 // seconds; 0 if it is not known
	Marks     []int64 // when each MiB was in memory, Unix nanoseconds; empty if that is not where it goes
	Payments  int
	Stalls    int
}

// child is a process that is one side of a trade, as its parent sees it.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// startChild starts a process, which lives until close or the end of ctx.
func startChild(ctx context.Context, spec childSpec) (*child, childAnswer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, childAnswer{}, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), asChild+"=1")
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = stopTimeout
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, childAnswer{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, childAnswer{}, err
	}
	if err := cmd.Start(); err != nil {
		return nil, childAnswer{}, err
	}
	c := &child{cmd, in, json.NewDecoder(out)}
	ready, err := c.tell(spec)
	if err != nil {
		return nil, ready, errors.Join(err, c.close())
	}
	return c, ready, nil
}

// tell sends v and waits for the answer. It is bounded by the process's ctx.
func (c *child) tell(v any) (childAnswer, error) {
	var a childAnswer
	if err := json.NewEncoder(c.in).Encode(v); err != nil {
		return a, fmt.Errorf("process %d: %w", c.cmd.Process.Pid, err)
	}
	if err := c.out.Decode(&a); err != nil {
		return a, fmt.Errorf("process %d ended without an answer: %w", c.cmd.Process.Pid, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("process %d: %s", c.cmd.Process.Pid, a.Error)
	}
	return a, nil
}

// close ends the process.
func (c *child) close() error {
	_ = c.in.Close() // it ends with its input
	_, err := bounded(2*stopTimeout, func() (any, error) { return nil, c.cmd.Wait() })
	if errors.Is(err, errHung) {
		err = errors.Join(err, c.cmd.Process.Kill())
	}
	return err
}

// runChild is the life of such a process.
func runChild(ctx context.Context) {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var spec childSpec
	if err := in.Decode(&spec); err != nil {
		return // nobody is there to be told
	}
	heap := make([]byte, spec.Case.Spare<<20)
	defer runtime.KeepAlive(heap)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &side{spec: spec, field: &field{c: spec.Case, dir: spec.Dir, goods: &goods{car: spec.CAR, bytes: spec.Bytes}, sinks: new(sync.Map)}}
	defer s.field.close()
	a, err := s.open(ctx)
	for {
		if err != nil {
			a.Error = err.Error()
		}
		if out.Encode(s.account(a)) != nil {
			return // the parent is gone
		}
		var o childOrder
		if err := in.Decode(&o); err != nil {
			return // the end of the input
		}
		a, err = s.do(ctx, o)
	}
}

// side is what runs in such a process.
type side struct {
	spec  childSpec
	field *field
	rival rival
	cpu   time.Duration // used before the order
}

// account adds what was used since the last order.
func (s *side) account(a childAnswer) childAnswer {
	used := cpuTime()
	a.CPU, s.cpu = (used - s.cpu).Seconds(), used
	a.RSS, a.Peak = resident()
	return a
}

// open starts a provider, or a client that is connected to one.
func (s *side) open(ctx context.Context) (a childAnswer, err error) {
	if s.spec.Root != "" {
		if s.field.goods.root, err = cid.Decode(s.spec.Root); err != nil {
			return a, err
		}
	}
	if s.spec.Provider != "" {
		return a, s.connect(ctx)
	}
	h, err := s.field.host("/ip4/127.0.0.1/tcp/0")
	if err != nil {
		return a, err
	}
	a.Addr = fmt.Sprintf("%s/p2p/%s", h.Addrs()[0], h.ID())
	if s.spec.Rival == streamHashed {
		s.field.serveStream(h)
		return a, nil
	}
	_, err = s.field.sell(ctx, h, termsOf(s.spec.Rival))
	return a, err
}

func termsOf(rival string) terms {
	switch rival {
	case "free":
		return free
	case "paid-strict":
		return strict
	}
	return paid
}

func (s *side) connect(ctx context.Context) error {
	to, err := peer.AddrInfoFromString(s.spec.Provider)
	if err != nil {
		return err
	}
	h, err := s.field.host("")
	if err != nil {
		return err
	}
	if err := h.Connect(ctx, *to); err != nil {
		return err
	}
	if s.spec.Rival == streamHashed {
		s.rival = &stream{s.field, h, to.ID, true}
		return nil
	}
	client, err := s.field.buy(ctx, h)
	s.rival = &trade{f: s.field, terms: termsOf(s.spec.Rival), client: client, to: market.RetrievalPeer{AddrInfo: *to}}
	return err
}

// do fetches what o names, all at once.
func (s *side) do(ctx context.Context, o childOrder) (childAnswer, error) {
	a := childAnswer{Deals: make([]childDeal, len(o.Roots))}
	errs := make([]error, len(o.Roots))
	var done sync.WaitGroup
	for i, root := range o.Roots {
		done.Go(func() { a.Deals[i], errs[i] = s.fetch(ctx, root) })
	}
	done.Wait()
	return a, errors.Join(errs...)
}

func (s *side) fetch(ctx context.Context, text string) (childDeal, error) {
	root, err := cid.Decode(text)
	if err != nil {
		return childDeal{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.field.timeout())
	defer cancel()
	began := time.Now()
	t, ok := s.rival.(*trade)
	if !ok {
		err := s.rival.fetch(ctx)
		return childDeal{Seconds: time.Since(began).Seconds()}, err
	}
	got, err := t.deal(ctx, root)
	d := childDeal{Seconds: time.Since(began).Seconds(), FirstByte: got.FirstByte.Seconds(), Payments: got.Payments, Stalls: got.Stalls}
	if held, ok := s.field.sinks.LoadAndDelete(root); ok {
		d.Marks = held.(*sink).times()
	}
	return d, err
}

// streamHashed is the name of the limit that is compared with between processes.
const streamHashed = "stream-sha256"
