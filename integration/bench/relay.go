package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// relay forwards UDP with a delay in each direction: proxy, for QUIC.
type relay struct {
	near   *net.UDPConn
	target *net.UDPAddr
	delay  time.Duration
	done   sync.WaitGroup
	stop   context.CancelFunc
}

const (
	datagramSize = 2 << 10  // a longer one is dropped, as on a line of 1,500 bytes
	relayed      = 16 << 10 // datagrams on the way; more are dropped, as by a router
)

// newRelay forwards to target. Half of rtt passes each way.
func newRelay(target string, rtt time.Duration) (*relay, error) {
	to, err := net.ResolveUDPAddr("udp", target)
	if err != nil {
		return nil, err
	}
	near, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &relay{near: near, target: to, delay: rtt / 2, stop: stop}
	r.done.Go(func() { r.serve(ctx) })
	return r, nil
}

func (r *relay) addr() *net.UDPAddr { return r.near.LocalAddr().(*net.UDPAddr) }

func (r *relay) close() {
	r.stop()
	_ = r.near.Close() // it ends what reads from it
	r.done.Wait()
}

// serve carries what clients send, from a socket of its own for each. It ends when the
// relay is closed.
func (r *relay) serve(ctx context.Context) {
	ways := make(map[netip.AddrPort]lane)
	defer func() {
		for _, way := range ways {
			close(way)
		}
	}()
	for {
		data, from, ok := receive(r.near)
		if !ok {
			return
		}
		if ways[from] == nil {
			far, err := net.DialUDP("udp", nil, r.target)
			if err != nil {
				continue // the client sends again
			}
			context.AfterFunc(ctx, func() { _ = far.Close() })
			ways[from] = r.open(func(b []byte) { _, _ = far.Write(b) }) // what is lost is sent again
			r.done.Go(func() { r.back(far, from) })
		}
		ways[from].send(data, r.delay)
	}
}

// back carries what comes for one client.
func (r *relay) back(far *net.UDPConn, to netip.AddrPort) {
	way := r.open(func(b []byte) { _, _ = r.near.WriteToUDPAddrPort(b, to) }) // what is lost is sent again
	defer close(way)
	for {
		data, _, ok := receive(far)
		if !ok {
			return
		}
		way.send(data, r.delay)
	}
}

// receive reads a datagram. It reports false when conn is closed.
func receive(conn *net.UDPConn) (data []byte, from netip.AddrPort, ok bool) {
	data = make([]byte, datagramSize)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(data)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil, from, false
		case err == nil && n < len(data):
			return data[:n], from, true
		}
	}
}

// lane is one direction for one client.
type lane chan parcel

// open returns a lane whose datagrams go to deliver, each when it is due.
func (r *relay) open(deliver func([]byte)) lane {
	l := make(lane, relayed)
	r.done.Go(func() {
		for x := range l {
			x.wait()
			deliver(x.data)
		}
	})
	return l
}

func (l lane) send(data []byte, delay time.Duration) {
	select {
	case l <- parcel{data, time.Now().Add(delay)}:
	default: // there is no room
	}
}
