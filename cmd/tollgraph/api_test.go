package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// call makes a request of the API at addr.
func call(t *testing.T, method, addr, path, token, body string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestAPI: the daemon answers on a port to those who show the token, and with a
// status and a code for every error.
func TestAPI(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 3<<20)
	p, root := s.sell("tree")
	s.must("car", "create", "-o", "mine.car", "tree")
	d := s.daemon("client", "--api", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0", "mine.car")
	text, err := os.ReadFile(s.path("client/api/token"))
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(string(text))
	if info, err := os.Stat(s.path("client/api/token")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("token: %v, %v", info, err)
	}
	for _, wrong := range []string{"", "x", token[1:], token + "0"} {
		if status, _ := call(t, "GET", d.api, "/v1/status", wrong, ""); status != http.StatusUnauthorized {
			t.Errorf("status %d for the token %q", status, wrong)
		}
	}
	order := func(more string) string { return `{"cid":"` + root + `","provider":"` + p.addr + `"` + more + `}` }
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/v1/status", "", 200, `"buys":true,"sells":true`},
		{"GET", "/v1/nothing", "", 404, "there is no"},
		{"GET", "/v1/deals", "", 200, "[]"},
		{"GET", "/v1/deals?limit=x", "", 400, "limit"},
		{"GET", "/v1/deals/1", "", 404, "deals list"},
		{"GET", "/v1/deals/x", "", 400, "id of a deal"},
		{"POST", "/v1/deals/1/cancel", "", 404, "no such deal"},
		{"POST", "/v1/deals/1/cancel", "{", 400, "JSON"},
		{"POST", "/v1/fetch", "", 400, "JSON"},
		{"POST", "/v1/fetch", order(`,"nonsense":1`), 400, "nonsense"},
		{"POST", "/v1/fetch", order(``) + "{}", 400, "behind"},
		{"POST", "/v1/fetch", order(`,"output":"relative"`), 400, "absolute"},
		{"POST", "/v1/fetch", order(`,"output":"` + s.path("tree") + `"`), 500, "exists"},
		{"POST", "/v1/fetch", order(`,"budget":"1"`), 400, "budget"},
		{"POST", "/v1/fetch", order(``), 402, "needed"},
		{"POST", "/v1/fetch", order(`,"budget":"` + strings.Repeat("1", maxBody) + `"`), 413, "large"},
		{"POST", "/v1/fetch", strings.Replace(order(`,"budget":"1FIL"`), root, nowhere, 1), 404, "not found"},
		{"POST", "/v1/estimate", order(``), 200, `"code":4`},
		{"POST", "/v1/estimate", order(`,"budget":"1FIL"`), 200, `"code":0`},
		{"GET", "/v1/ask", "", 200, `"price_atto_per_byte":"0"`},
		{"PUT", "/v1/ask", `{"price_atto_per_byte":"7"}`, 200, `"price_atto_per_byte":"7"`},
		{"PUT", "/v1/ask", `{"payment_interval":0}`, 400, "interval"},
		{"GET", "/v1/ask", "", 200, `"payment_interval":1048576`},
		{"GET", "/v1/budget", "", 200, `"total_atto":"0"`},
		{"PUT", "/v1/budget", `{"total_atto":"1000000000000000000","max_price_atto_per_byte":"99999999"}`, 200, `"total_atto":"1000000000000000000"`},
		{"PUT", "/v1/budget", `{"total_atto":"-1"}`, 400, "JSON"},
	} {
		if status, text := call(t, c.method, d.api, c.path, token, c.body); status != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s %s %.99s: status %d, want %d; %q is not in %q", c.method, c.path, c.body, status, c.status, c.says, text)
		}
	}
	s.followEvents(d, token, order(`,"budget":"1FIL","output":"`+s.path("out")+`"`))
	s.same("tree", "out")
	_, metrics := call(t, "GET", d.api, "/metrics", token, "")
	for _, line := range []string{
		`tollgraph_deals_total{outcome="completed",role="client"} 1`, `tollgraph_deals_running{role="client"} 0`,
		`tollgraph_refusals_total{reason="not found",role="client"} 1`, `tollgraph_refusals_total{reason="price or budget",role="client"} 1`,
		`tollgraph_bytes_total{role="client"} 3.1`, `tollgraph_payments_total `, `tollgraph_stalls_total `, `tollgraph_money_atto_total{role="client"} 2`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("%q is not in the metrics", line)
		}
	}
	if got := decode[nodeStatus](t, result{out: func() string { _, text := call(t, "GET", d.api, "/v1/status", token, ""); return text }()}); got.Open != 0 || got.Pieces != 1 {
		t.Errorf("status %+v", got)
	}
}

// followEvents makes a fetch while it listens to what happens, until the deal
// is complete and the fetch has its receipt.
func (s *shell) followEvents(d *serving, token, order string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+d.api+"/v1/events", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	done := make(chan string, 1)
	go func() {
		_, text := call(s.t, "POST", d.api, "/v1/fetch?wait=true", token, order)
		done <- text
	}()
	var seen []string
	err = notices(resp.Body, func(n notice) (bool, error) {
		var e eventView
		if err := json.Unmarshal(n.data, &e); err != nil {
			return true, err
		}
		if n.name == "client" {
			seen = append(seen, e.Event)
		}
		return e.Event == "complete", nil
	})
	if err != nil || seen[0] != "open" || seen[len(seen)-1] != "complete" {
		s.t.Errorf("events %v, %v", seen, err)
	}
	if text := <-done; !strings.Contains(text, "event: deal\n") || !strings.Contains(text, "event: receipt\n") {
		s.t.Errorf("the one who fetched was told %q", text)
	}
}
