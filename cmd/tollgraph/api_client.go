package main

import (
	"bufio"
	"bytes"
	"context"
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
	"time"
)

// remote speaks to the node that runs on a repo.
type remote struct {
	http  *http.Client
	token string // of a node that listens on a port
}

// dial returns the node that runs on the repo at dir, or nil if none does that
// would answer.
func dial(ctx context.Context, dir string) (*remote, error) {
	at, err := os.ReadFile(apiPath(dir, apiAddress))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	network, addr, _ := strings.Cut(strings.TrimSpace(string(at)), " ")
	r := &remote{}
	if network == "unix" {
		addr = apiPath(dir, apiSocket) // the repo may have been moved
	} else if r.token, err = tokenOf(dir); err != nil || r.token == "" {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, ctx.Err() // it left its address behind: it was killed
	}
	_ = conn.Close() // it only showed that somebody listens
	r.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, addr)
		},
		ResponseHeaderTimeout: 2 * time.Minute,
		DisableKeepAlives:     true,
	}}
	return r, nil
}

// tokenOf returns the token for the node that runs on the repo at dir, and none
// if none runs: then the port it had may be a stranger's, who is not shown it.
func tokenOf(dir string) (string, error) {
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err == nil {
		return "", lock.Close()
	}
	if !errors.Is(err, errRepoLocked) {
		return "", err
	}
	return readToken(dir)
}

func (r *remote) get(ctx context.Context, path string, out any) error {
	return r.call(ctx, http.MethodGet, path, nil, out)
}

func (r *remote) put(ctx context.Context, path string, in, out any) error {
	return r.call(ctx, http.MethodPut, path, in, out)
}

func (r *remote) post(ctx context.Context, path string, in, out any) error {
	return r.call(ctx, http.MethodPost, path, in, out)
}

// call makes a request and reads its answer into out. An error that the node
// answers has its exit code.
func (r *remote) call(ctx context.Context, method, path string, in, out any) (err error) {
	body, err := r.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("the running node answers what this program cannot read: %w", err)
	}
	return nil
}

// open makes a request and returns the body of its answer.
func (r *remote) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://tollgraph"+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the node that runs on the repo: %w", err)
	}
	if resp.StatusCode < 300 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	return nil, answeredError(resp)
}

// answeredError is the error in an answer.
func answeredError(resp *http.Response) error {
	var e apiError
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&e); err != nil || e.Error == "" {
		return fmt.Errorf("the node that runs on the repo answers %s", resp.Status)
	}
	return e.err()
}

// notice is one server-sent event.
type notice struct {
	name string
	data []byte
}

// notices calls do with every event of a stream, until it returns true, an
// error, or the stream ends.
func notices(body io.Reader, do func(notice) (bool, error)) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxAnswer)
	var n notice
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "" && n.name != "":
			if over, err := do(n); over || err != nil {
				return err
			}
			n = notice{}
		case field == "event":
			n.name = value
		case field == "data":
			n.data = append(n.data, value...)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}
