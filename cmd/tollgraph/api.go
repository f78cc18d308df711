package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The files of the API, in the folder api of the repo, which is the owner's
// alone.
const (
	apiSocket  = "socket"
	apiAddress = "address" // "unix", or "tcp HOST:PORT"; there while a node listens
	apiToken   = "token"   // what who comes by TCP has to show
)

const (
	maxBody    = 1 << 20  // bytes of a request
	maxAnswer  = 64 << 20 // bytes of an answer, or of one event
	apiTimeout = time.Minute
	// maxSocket is how long the path of a socket may be; the systems' limits
	// are 104 to 108 bytes.
	maxSocket = 103
)

func apiPath(dir, name string) string { return filepath.Join(dir, "api", name) }

// apiError is how an error is answered.
type apiError struct {
	Error string `json:"error"`
	Code  int    `json:"code"` // as the program would exit
	Deal  string `json:"deal,omitempty"`
}

func (e apiError) err() error {
	return &exitError{max(e.Code, exitFailed), errors.New(e.Error)}
}

// httpStatus is the status of an answer for an exit code.
func httpStatus(code int) int {
	switch code {
	case exitUsage:
		return http.StatusBadRequest
	case exitNotFound:
		return http.StatusNotFound
	case exitPrice:
		return http.StatusPaymentRequired
	case exitUnverified:
		return http.StatusUnprocessableEntity
	case exitIncomplete, exitInterrupted:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// api is the HTTP server of a running node, for the owner of its repo.
type api struct {
	dir    string
	addr   string // for people: a socket's path, or HOST:PORT
	server *http.Server
	stop   context.CancelFunc // ends streams
	done   sync.WaitGroup
}

// startAPI serves handler for the repo at dir: on a socket in it, or on listen,
// a loopback address, to those who show the token in the repo.
func startAPI(ctx context.Context, dir, listen string, handler http.Handler) (*api, error) {
	if err := os.MkdirAll(apiPath(dir, ""), 0o700); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if err := os.Chmod(apiPath(dir, ""), 0o700); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	l, at, err := listenAPI(ctx, dir, listen)
	if err != nil {
		return nil, err
	}
	if listen != "" {
		token, err := makeToken(dir)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		handler = guarded(token, handler)
	}
	if err := os.WriteFile(apiPath(dir, apiAddress), []byte(at), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("api: %w", err), l.Close())
	}
	life, stop := context.WithCancel(ctx)
	addr := l.Addr().String()
	if whole, err := filepath.Abs(addr); err == nil && listen == "" {
		addr = whole
	}
	a := &api{dir: dir, addr: addr, stop: stop, server: &http.Server{
		Handler: bounded(handler), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 64 << 10, BaseContext: func(net.Listener) context.Context { return life },
	}}
	a.done.Go(func() { _ = a.server.Serve(l) }) // ends with Close
	return a, nil
}

// listenAPI opens the socket, or the port if one is named. What lies at the
// socket's path is left from a node that was killed: the repo is locked.
func listenAPI(ctx context.Context, dir, listen string) (net.Listener, string, error) {
	var config net.ListenConfig
	if listen != "" {
		l, err := config.Listen(ctx, "tcp", listen)
		if err != nil {
			return nil, "", fmt.Errorf("api: %w; choose another address with --api", err)
		}
		return l, "tcp " + l.Addr().String(), nil
	}
	path := apiPath(dir, apiSocket)
	if len(path) > maxSocket {
		return nil, "", fmt.Errorf("api: the path %s is too long for a socket: use a repo with a shorter one, or --api 127.0.0.1:0", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("api: %w", err)
	}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, "", fmt.Errorf("api: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, "", errors.Join(fmt.Errorf("api: %w", err), l.Close())
	}
	return l, "unix", nil
}

// Close stops serving and waits for the requests that run.
func (a *api) Close() error {
	a.stop()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := a.server.Shutdown(ctx)
	if err != nil {
		err = a.server.Close()
	}
	a.done.Wait()
	if gone := os.Remove(apiPath(a.dir, apiAddress)); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// loopback reports an error unless addr is HOST:PORT on this machine only.
func loopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return errors.New("not a loopback address: write 127.0.0.1:PORT, or reach this machine through a tunnel")
	}
	return nil
}

// makeToken returns the token in the repo at dir, made if there is none.
func makeToken(dir string) (string, error) {
	token, err := readToken(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("api: %w", err)
	}
	token = hex.EncodeToString(random)
	if err := writeDurably(apiPath(dir, apiToken), []byte(token)); err != nil {
		return "", fmt.Errorf("api: %w", err)
	}
	return token, nil
}

func readToken(dir string) (string, error) {
	text, err := os.ReadFile(apiPath(dir, apiToken))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if len(token) < 32 {
		return "", fmt.Errorf("api: %s holds no token; remove it for a new one", apiPath(dir, apiToken))
	}
	return token, nil
}

// guarded lets only those through who show the token.
func guarded(token string, next http.Handler) http.Handler {
	want := []byte("Bearer " + token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			writeJSON(w, http.StatusUnauthorized, apiError{Error: "show the token that is in the repo, in api/token: Authorization: Bearer TOKEN", Code: exitFailed})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bounded bounds what a request may send, and how long it may take unless it
// is a stream, which moves its deadline on.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(2 * apiTimeout)) // the server's connections have deadlines
		next.ServeHTTP(w, r)
	})
}

// answer makes a handler of a function that returns what is answered.
func answered(do func(ctx context.Context, r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), apiTimeout)
		defer cancel()
		v, err := do(ctx, r)
		if err != nil {
			writeError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, v)
	}
}

func writeError(w http.ResponseWriter, err error) {
	code := exitCode(err)
	status := httpStatus(code)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		status = http.StatusRequestEntityTooLarge
	}
	writeJSON(w, status, apiError{Error: err.Error(), Code: code})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // who does not listen any more is not told
}

// readBody reads one JSON object of known fields.
func readBody(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return usagef("the body is not the JSON that is expected: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return usagef("the body goes on behind its JSON")
	}
	return nil
}

// stream is an answer of server-sent events.
type stream struct {
	w http.ResponseWriter
	c *http.ResponseController
}

// newStream begins to answer.
func newStream(w http.ResponseWriter) stream {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	s := stream{w, http.NewResponseController(w)}
	_ = s.c.Flush() // a reader who is gone shows at the first event
	return s
}

// send writes one event. A reader that does not take it in time is an error.
func (s stream) send(event string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.write(fmt.Sprintf("event: %s\ndata: %s\n\n", event, data))
}

// beat shows that the stream is alive.
func (s stream) beat() error { return s.write(": \n\n") }

func (s stream) write(text string) error {
	if err := s.c.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(s.w, text); err != nil {
		return err
	}
	return s.c.Flush()
}
