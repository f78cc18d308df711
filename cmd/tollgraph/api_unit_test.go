package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestAPIStops: closing the server ends the streams that run, and leaves
// neither goroutines nor the address behind.
func TestAPIStops(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := t.TempDir()
	a, err := startAPI(t.Context(), dir, "", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := newStream(w)
		if err := s.send("hello", begun{"1"}); err != nil {
			t.Error(err)
		}
		<-r.Context().Done()
	}))
	if err != nil {
		t.Fatal(err)
	}
	r, err := dial(t.Context(), dir)
	if err != nil || r == nil {
		t.Fatal("nobody answers", err)
	}
	body, err := r.open(t.Context(), "GET", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	err = notices(body, func(n notice) (bool, error) {
		if n.name != "hello" || string(n.data) != `{"deal":"1"}` {
			t.Errorf("event %s %s", n.name, n.data)
		}
		go func() { closed <- a.Close() }()
		return false, nil
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream ended with %v", err)
	}
	if err := errors.Join(<-closed, body.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(apiPath(dir, apiAddress)); err == nil {
		t.Error("the address is left behind")
	}
	if r, err := dial(t.Context(), dir); r != nil || err != nil {
		t.Errorf("dial after the end: %v, %v", r, err)
	}
}

// TestDialNobody: an address that was left behind is nobody's, and one on a
// port is not tried unless the repo is in use: it may be a stranger's by now,
// who is not to see the token.
func TestDialNobody(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(apiPath(dir, ""), 0o700); err != nil {
		t.Fatal(err)
	}
	stranger, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	for name, text := range map[string]string{apiToken: strings.Repeat("0", 64), apiAddress: "tcp " + stranger.Addr().String()} {
		if err := os.WriteFile(apiPath(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := dial(t.Context(), dir); r != nil || err != nil {
		t.Errorf("a stranger's port: %v, %v", r, err)
	}
	if err := os.WriteFile(apiPath(dir, apiAddress), []byte("unix"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := dial(t.Context(), dir); r != nil || err != nil {
		t.Errorf("no socket: %v, %v", r, err)
	}
}

// TestLoopback: the API is for this machine.
func TestLoopback(t *testing.T) {
	for addr, good := range map[string]bool{
		"127.0.0.1:0": true, "127.9.9.9:80": true, "[::1]:4180": true,
		"0.0.0.0:1": false, ":1": false, "192.168.0.1:1": false, "localhost:1": false, "127.0.0.1": false, "": false,
	} {
		if err := loopback(addr); (err == nil) != good {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

// TestLongSocket: a repo whose socket would have too long a path says what to
// do.
func TestLongSocket(t *testing.T) {
	dir := t.TempDir() + "/" + strings.Repeat("x", maxSocket)
	a, err := startAPI(t.Context(), dir, "", http.NotFoundHandler())
	if a != nil || err == nil || !strings.Contains(err.Error(), "--api") {
		t.Errorf("%v, %v", a, err)
	}
}

// TestSettings: what is set is read again, and gone when it is removed.
func TestSettings(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	db, err := peekDatabase(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := settings{db}
	var got budget
	if found, err := s.get(ctx, "x", &got); found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
	want := budget{MaxPrice: 7}
	for range 2 {
		if err := s.set(ctx, "x", want); err != nil {
			t.Fatal(err)
		}
		if found, err := s.get(ctx, "x", &got); !found || err != nil || got != want {
			t.Errorf("%v, %v, %+v", found, err, got)
		}
		want.MaxPrice++
	}
	if err := s.set(ctx, "x", nil); err != nil {
		t.Fatal(err)
	}
	if found, err := s.get(ctx, "x", &got); found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
}

// TestShelf: orders come back as they were, and what is held is marked.
func TestShelf(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	db, err := peekDatabase(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := shelf{db}
	const high = 1<<63 + 5 // an id that is no signed number
	want := order{CID: nowhere, Provider: "x", Output: "/out", Flat: true, Budget: "1FIL"}
	if err := errors.Join(s.put(ctx, high, want), s.hold(ctx, high), s.hold(ctx, high)); err != nil {
		t.Fatal(err)
	}
	got, found, err := s.order(ctx, high)
	if err != nil || !found || got != want {
		t.Errorf("%+v, %v, %v", got, found, err)
	}
	ids, err := s.ids(ctx)
	if err != nil || len(ids) != 1 || ids[0] != high {
		t.Errorf("%v, %v", ids, err)
	}
	const name = "9223372036854775813"
	deals := []deal{{ID: name, Role: "client", Order: name, open: true}, {ID: name, Role: "provider", Order: name, open: true}, {ID: "1", Role: "client", Order: "1", open: true}}
	if err := s.mark(ctx, deals); err != nil || !strings.Contains(deals[0].Message, "paused") || deals[1].Message+deals[2].Message != "" {
		t.Errorf("%+v, %v", deals, err)
	}
	if err := s.drop(ctx, high); err != nil {
		t.Fatal(err)
	}
	held, err := s.held(ctx, high)
	if _, found, missing := s.order(ctx, high); found || held || err != nil || missing != nil {
		t.Errorf("%v, %v, %v, %v", found, held, err, missing)
	}
}

// FuzzOrder: whatever an order says, it is a purchase or a wrong use.
func FuzzOrder(f *testing.F) {
	at := "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWSCWDCGKdGaLrXcHTmSTBvqcpdLmChMRGCH3bXZgSTvHi"
	for _, o := range []order{
		{CID: nowhere, Provider: at}, {CID: nowhere + "/a/b", Provider: at, Output: "/out", Budget: "1FIL", MaxPrice: "0.1FIL", MaxAtRisk: "1MiB"},
		{CID: nowhere, Provider: at, EntityBytes: "0:*"}, {CID: nowhere, Provider: at, Selector: `{".":{}}`, DagScope: "all"},
		{CID: nowhere, Provider: at, DagScope: "block", Output: "relative"}, {},
	} {
		text, err := json.Marshal(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var o order
		if json.Unmarshal(text, &o) != nil {
			return
		}
		p, err := o.purchase()
		if err != nil {
			if exitCode(err) != exitUsage {
				t.Errorf("exit code %d: %v", exitCode(err), err)
			}
			return
		}
		if !p.root.Defined() || p.from.ID == "" || (p.output.path == "") != (o.Output == "") {
			t.Errorf("%+v means %+v", o, p)
		}
	})
}
