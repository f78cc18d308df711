package main

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// proxy forwards TCP connections with a delay in each direction, and perhaps at
// a limited rate.
type proxy struct {
	listen net.Listener
	target string
	delay  time.Duration
	rate   float64 // bytes per second and direction; 0: as fast as it goes
	done   sync.WaitGroup
	stop   context.CancelFunc
}

// newProxy forwards to target. Half of rtt passes each way.
func newProxy(target string, rtt time.Duration, rate float64) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &proxy{listen: l, target: target, delay: rtt / 2, rate: rate, stop: stop}
	p.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			p.done.Go(func() { p.serve(ctx, c) })
		}
	})
	return p, nil
}

func (p *proxy) addr() *net.TCPAddr { return p.listen.Addr().(*net.TCPAddr) }

func (p *proxy) close() {
	p.stop()
	_ = p.listen.Close()
	p.done.Wait()
}

func (p *proxy) serve(ctx context.Context, near net.Conn) {
	defer near.Close()
	select {
	case <-time.After(2 * p.delay): // what the handshake takes, after which it is sent for the first time
	case <-ctx.Done():
		return
	}
	var d net.Dialer
	far, err := d.DialContext(ctx, "tcp", p.target)
	if err != nil {
		return // the near side sees the end
	}
	defer far.Close()
	cut := context.AfterFunc(ctx, func() { _, _ = near.Close(), far.Close() })
	defer cut()
	var both sync.WaitGroup
	both.Go(func() { p.pump(far, near) })
	both.Go(func() { p.pump(near, far) })
	both.Wait()
}

// parcel is what was read, and when it is due at the other side.
type parcel struct {
	data []byte
	due  time.Time
}

// wait returns when the parcel is due: this is the delay, not a wait for something.
func (x parcel) wait() { time.Sleep(time.Until(x.due)) }

const (
	parcelSize = 64 << 10
	inFlight   = 1024 // parcels: 64 MiB on the way
)

// pump carries what comes from src to dst.
func (p *proxy) pump(dst, src net.Conn) {
	way, spare := make(chan parcel, inFlight), make(chan []byte, inFlight)
	var arrive sync.WaitGroup
	arrive.Go(func() { p.deliver(dst, way, spare) })
	var free time.Time // when the line is free again
	for {
		var buf []byte
		select {
		case buf = <-spare:
		default:
			buf = make([]byte, parcelSize)
		}
		n, err := src.Read(buf[:parcelSize])
		if n > 0 {
			now := time.Now()
			if p.rate > 0 {
				if free.Before(now) {
					free = now
				}
				free = free.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
				now = free
			}
			way <- parcel{buf[:n], now.Add(p.delay)}
		}
		if err != nil {
			break
		}
	}
	close(way)
	arrive.Wait()
	if c, ok := dst.(*net.TCPConn); ok {
		_ = c.CloseWrite() // the other way may go on
	}
}

func (p *proxy) deliver(dst io.Writer, way <-chan parcel, spare chan<- []byte) {
	var broken bool
	for x := range way {
		if !broken {
			x.wait()
			_, err := dst.Write(x.data)
			broken = err != nil // what follows is dropped, as the reader would be told
		}
		select {
		case spare <- x.data[:parcelSize]:
		default:
		}
	}
}
