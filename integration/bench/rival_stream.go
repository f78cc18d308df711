package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	carv2 "github.com/ipld/go-car/v2"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// stream is one libp2p stream that carries the bytes and nothing else: what no
// protocol on libp2p can beat. With a hash it is what none can beat that
// verifies; its buffers are reused and it hashes beside reading.
type stream struct {
	f      *field
	client host.Host
	to     peer.ID
	hashed bool
}

const (
	streamProtocol = "/tollgraph/bench/stream"
	streamBuffer   = 1 << 20
)

func makeStream(ctx context.Context, f *field) (rival, error) { return newStream(ctx, f, false) }

func makeStreamHashed(ctx context.Context, f *field) (rival, error) { return newStream(ctx, f, true) }

func newStream(ctx context.Context, f *field, hashed bool) (rival, error) {
	provider, client, err := f.hosts(ctx)
	if err != nil {
		return nil, err
	}
	f.serveStream(provider)
	return &stream{f, client, provider.ID(), hashed}, nil
}

// serveStream sends the goods to whoever opens a stream.
func (f *field) serveStream(provider host.Host) {
	provider.SetStreamHandler(streamProtocol, func(s network.Stream) {
		var ask [1]byte
		if _, err := io.ReadFull(s, ask[:]); err != nil {
			_ = s.Reset()
			return
		}
		if err := f.send(s); err != nil {
			_ = s.Reset() // the reader sees it
			return
		}
		_ = s.Close()
	})
}

// send writes the goods, from disk if that is where they are.
func (f *field) send(w io.Writer) error {
	if f.c.Disk {
		file, err := os.Open(f.goods.car)
		if err != nil {
			return err
		}
		defer file.Close() // it was only read
		_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{file}, make([]byte, streamBuffer))
		return err
	}
	for _, c := range f.goods.order {
		if _, err := w.Write(f.goods.blocks[c]); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) fetch(ctx context.Context) error {
	conn, err := s.client.NewStream(ctx, s.to, streamProtocol)
	if err != nil {
		return err
	}
	defer conn.Close() // everything has been read
	if _, err := conn.Write([]byte{1}); err != nil {
		return err
	}
	want := s.f.goods.bytes
	var out io.Writer = io.Discard
	if s.f.c.Disk {
		info, err := os.Stat(s.f.goods.car)
		if err != nil {
			return err
		}
		want = uint64(info.Size())
		file, err := s.file()
		if err != nil {
			return err
		}
		defer file.Close() // synced below
		out = file
	}
	n, err := s.drain(conn, out)
	if err == nil && n != want {
		err = fmt.Errorf("%d of %d bytes", n, want)
	}
	if f, ok := out.(*os.File); ok && err == nil {
		err = f.Sync()
	}
	return err
}

func (s *stream) file() (*os.File, error) {
	dir, err := s.f.fresh("stream")
	if err != nil {
		return nil, err
	}
	return os.Create(filepath.Join(dir, "copy"))
}

// drain reads to the end into buffers that are hashed and written beside.
func (s *stream) drain(r io.Reader, out io.Writer) (uint64, error) {
	full, empty := make(chan []byte, 4), make(chan []byte, 4)
	for range 4 {
		empty <- make([]byte, streamBuffer)
	}
	done := make(chan error, 1)
	go func() { done <- consume(full, empty, out, s.hashed) }()
	var total uint64
	var err error
	for err == nil {
		var n int
		buf := <-empty
		n, err = io.ReadFull(r, buf)
		total += uint64(n)
		full <- buf[:n]
	}
	close(full)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return total, errors.Join(err, <-done)
}

func consume(full <-chan []byte, empty chan<- []byte, out io.Writer, hashed bool) error {
	var h hash.Hash = sha256.New()
	var failed error
	for b := range full {
		if hashed {
			h.Write(b)
		}
		if _, err := out.Write(b); err != nil && failed == nil {
			failed = err
		}
		empty <- b[:streamBuffer]
	}
	return failed
}

func (s *stream) close() {}

// overHTTP fetches a CAR with a plain GET and verifies every block.
type overHTTP struct {
	f      *field
	url    string
	client *http.Client
}

func makeHTTP(_ context.Context, f *field) (rival, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	var car []byte
	if !f.c.Disk {
		if car, err = os.ReadFile(f.goods.car); err != nil {
			return nil, err
		}
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.c.Disk {
			http.ServeFile(w, r, f.goods.car)
			return
		}
		_, _ = w.Write(car) // the client sees a short answer
	})}
	go func() { _ = srv.Serve(l) }() // ends with Close
	f.atEnd(func() { _ = srv.Close() })
	addr, err := f.viaTCP(l.Addr().String())
	if err != nil {
		return nil, err
	}
	t := &http.Transport{ReadBufferSize: 256 << 10}
	f.atEnd(t.CloseIdleConnections)
	return &overHTTP{f, "http://" + addr + "/", &http.Client{Transport: t}}, nil
}

func (h *overHTTP) fetch(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url, nil)
	if err != nil {
		return err
	}
	res, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() // it has been read
	var body io.Reader = bufio.NewReaderSize(res.Body, streamBuffer)
	var file *os.File
	if h.f.c.Disk {
		dir, err := h.f.fresh("http")
		if err != nil {
			return err
		}
		if file, err = os.Create(filepath.Join(dir, "copy.car")); err != nil {
			return err
		}
		defer file.Close() // synced below
		body = io.TeeReader(body, file)
	}
	r, err := carv2.NewBlockReader(body) // it hashes every block
	if err != nil {
		return err
	}
	var got uint64
	for {
		b, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		got += uint64(len(b.RawData()))
	}
	if file != nil {
		if err := file.Sync(); err != nil {
			return err
		}
	}
	return h.f.complete(got)
}

func (h *overHTTP) close() {}
