package main

import (
	"errors"
	"math/big"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// stats counts what a node does, from its start on, for Prometheus. It learns
// of it by events, in which a deal's sums only rise; what a deal had when it was
// first heard of is not counted.
type stats struct {
	registry *prometheus.Registry
	deals    *prometheus.CounterVec // role, outcome
	running  *prometheus.GaugeVec   // role
	bytes    *prometheus.CounterVec // role
	money    *prometheus.CounterVec // role
	payments prometheus.Counter
	stalls   prometheus.Counter
	refusals *prometheus.CounterVec // role, reason

	mu   sync.Mutex
	seen map[dealKey]sums // guarded by mu; of deals that run
}

// dealKey names a deal of either role.
type dealKey struct{ role, peer, id string }

// sums are what only rises in a deal.
type sums struct {
	bytes            uint64
	paid             voucher.Amount
	payments, stalls int
}

func newStats() *stats {
	s := &stats{registry: prometheus.NewRegistry(), seen: make(map[dealKey]sums)}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tollgraph", Name: name, Help: help}, labels)
		s.registry.MustRegister(c)
		return c
	}
	s.deals = counter("deals_total", "Deals by what became of them: opened, completed, stopped.", "role", "outcome")
	s.bytes = counter("bytes_total", "Block bytes received (client) or charged (provider).", "role")
	s.money = counter("money_atto_total", "Money paid (client) or received (provider), in attoFIL.", "role")
	s.refusals = counter("refusals_total", "Deals that were refused, at the start or later, by reason.", "role", "reason")
	s.payments = counter("payments_total", "Payments that were signed.").WithLabelValues()
	s.stalls = counter("stalls_total", "Times a transfer stood still for money.").WithLabelValues()
	s.running = prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "tollgraph", Name: "deals_running", Help: "Deals that run."}, []string{"role"})
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "tollgraph", Name: "build_info", Help: "1; the version is a label.",
		ConstLabels: prometheus.Labels{"version": versionText()}}, func() float64 { return 1 })
	s.registry.MustRegister(s.running, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, role := range []string{"client", "provider"} { // so that they are there before they count
		s.running.WithLabelValues(role).Set(0)
		s.bytes.WithLabelValues(role).Add(0)
		s.money.WithLabelValues(role).Add(0)
	}
	return s
}

func (s *stats) handler() http.Handler {
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: apiTimeout})
}

// client counts an event of a client's deal.
func (s *stats) client(ev market.ClientEvent, d market.ClientDealState) {
	now := sums{uint64(d.TotalReceived), d.FundsSpent, d.Payments, d.Stalls}
	key := dealKey{"client", d.Sender.String(), clientDeal(d).ID}
	s.see(key, now, ev == market.ClientEventComplete, ev == market.ClientEventError)
	if ev == market.ClientEventError && d.Err != nil && !errors.Is(d.Err, market.ErrPaused) {
		s.refused("client", d.Err)
	}
}

// provider counts an event of a provider's deal.
func (s *stats) provider(ev market.ProviderEvent, d market.ProviderDealState) {
	key := dealKey{"provider", d.Receiver.String(), providerDeal(d).ID}
	s.see(key, sums{bytes: uint64(d.TotalSent), paid: d.FundsReceived}, ev == market.ProviderEventComplete, ev == market.ProviderEventError)
	if ev == market.ProviderEventError {
		s.refusals.WithLabelValues("provider", d.Status.String()).Inc()
	}
}

// see counts what a deal has now and had not before.
func (s *stats) see(key dealKey, now sums, completed, stopped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.seen[key]
	if !known {
		before = now
		s.deals.WithLabelValues(key.role, "opened").Inc()
		s.running.WithLabelValues(key.role).Inc()
	}
	if now.bytes > before.bytes {
		s.bytes.WithLabelValues(key.role).Add(float64(now.bytes - before.bytes))
	}
	paid, _ := new(big.Float).SetInt(now.paid.Sub(before.paid).Big()).Float64()
	s.money.WithLabelValues(key.role).Add(paid)
	s.payments.Add(float64(max(now.payments-before.payments, 0)))
	s.stalls.Add(float64(max(now.stalls-before.stalls, 0)))
	s.seen[key] = now
	if !completed && !stopped {
		return
	}
	delete(s.seen, key)
	s.running.WithLabelValues(key.role).Dec()
	outcome := "completed"
	if stopped {
		outcome = "stopped"
	}
	s.deals.WithLabelValues(key.role, outcome).Inc()
}

// refused counts a deal that did not begin, or was ended, by the kind of err.
func (s *stats) refused(role string, err error) {
	reason := map[int]string{
		exitUsage: "usage", exitNotFound: "not found", exitPrice: "price or budget", exitUnverified: "verification",
	}[exitCode(err)]
	if reason != "" {
		s.refusals.WithLabelValues(role, reason).Inc()
	}
}
