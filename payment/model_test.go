package payment

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"pgregory.net/rapid"

	"github.com/tollgraph/tollgraph/voucher"
)

// The model is the specification written down as slowly as possible: it keeps
// everything that ever happened, and works everything out from that.
type (
	modelLane struct {
		payee   int
		channel address.Address
		lane    uint64
		budget  uint64
		given   []*voucher.SignedVoucher // as signed, first to last
		took    []*voucher.SignedVoucher // as credited
	}
	modelSpend struct {
		day    int64
		payee  int
		amount uint64
	}
	model struct {
		dir    string
		db     [2]*sql.DB // the client's, the provider's
		w      *Wallet
		tills  []*Till // of two payees, in one database
		policy Policy
		now    time.Time
		today  int64 // the latest day that was counted on, or the one set
		lanes  []*modelLane
		spent  []modelSpend
		lines  map[int]uint64
		paid   map[int]uint64 // settled, by payee
		mem    testing.TB
	}
)

const modelLine = 300 // default credit

func (m *model) startClient() {
	m.db[0] = m.dial("client")
	w, err := NewWallet(m.db[0], keyOf(m.mem, 1), WalletConfig{Now: func() time.Time { return m.now }})
	must(m.mem, err)
	m.w = w
}

func (m *model) startProvider() {
	m.db[1] = m.dial("provider")
	m.tills = nil
	for n := range 2 {
		till, err := NewTill(m.db[1], keyOf(m.mem, byte(10+n)).Address(), TillConfig{DefaultCredit: voucher.Atto(modelLine)})
		must(m.mem, err)
		m.tills = append(m.tills, till)
	}
}

func (m *model) dial(name string) *sql.DB {
	return dial(m.mem, filepath.Join(m.dir, name))
}

// empty returns the bytes of a database with the tables, which is faster to
// copy than to make.
func empty(t *testing.T) []byte {
	path := t.TempDir() + "/db"
	must(t, open(t, path).Close())
	file, err := os.ReadFile(path)
	must(t, err)
	return file
}

func lastOf(list []*voucher.SignedVoucher) (nonce, amount uint64) {
	for _, v := range list {
		nonce, amount = max(nonce, v.Nonce), max(amount, v.Amount.Uint64())
	}
	return nonce, amount
}

// worth is the sum of the lanes at payee.
func (m *model) worth(payee int) (sum uint64) {
	for _, l := range m.lanes {
		if _, amount := lastOf(l.took); l.payee == payee {
			sum += amount
		}
	}
	return sum
}

func (m *model) allocate(t *rapid.T) {
	payee := rapid.IntRange(0, 1).Draw(t, "payee")
	budget := rapid.SampledFrom([]uint64{0, 50, 200, 1 << 40}).Draw(t, "budget")
	ch, err := m.w.GetOrCreatePaymentChannel(m.mem.Context(), m.w.Address(), m.tills[payee].Address(), voucher.Atto(budget))
	must(m.mem, err)
	lane, err := m.w.AllocateLane(m.mem.Context(), ch, voucher.Atto(budget))
	must(m.mem, err)
	m.lanes = append(m.lanes, &modelLane{payee: payee, channel: ch, lane: lane, budget: budget})
}

func (m *model) lane(t *rapid.T) *modelLane {
	if len(m.lanes) == 0 {
		t.Skip("no lane yet")
	}
	return m.lanes[rapid.IntRange(0, len(m.lanes)-1).Draw(t, "lane")]
}

func (m *model) setBudget(t *rapid.T) {
	l := m.lane(t)
	l.budget = rapid.Uint64Range(0, 500).Draw(t, "budget")
	must(m.mem, m.w.SetLaneBudget(m.mem.Context(), l.channel, l.lane, voucher.Atto(l.budget)))
}

// forbids returns the rule that forbids l to be worth amount, or "".
func (m *model) forbids(l *modelLane, amount, more uint64) Rule {
	day := max(m.today, dayOf(m.now))
	var provider, today, total uint64
	for _, s := range m.spent {
		total += s.amount
		if s.day == day {
			today += s.amount
			if s.payee == l.payee {
				provider += s.amount
			}
		}
	}
	over := func(limit voucher.Amount, would uint64) bool {
		return !limit.IsZero() && limit.Less(voucher.Atto(would))
	}
	switch {
	case amount > l.budget:
		return RuleLane
	case over(m.policy.PerDeal, amount):
		return RulePerDeal
	case over(m.policy.PerProviderPerDay, provider+more):
		return RulePerProviderPerDay
	case over(m.policy.PerDay, today+more):
		return RulePerDay
	case over(m.policy.Total, total+more):
		return RuleTotal
	}
	return ""
}

func (m *model) sign(t *rapid.T) {
	l := m.lane(t)
	nonce, last := lastOf(l.given)
	amount := rapid.Uint64Range(0, last+100).Draw(t, "amount")
	v, err := m.w.CreatePaymentVoucher(m.mem.Context(), l.channel, voucher.Atto(amount), l.lane)
	var over *BudgetError
	switch {
	case amount <= last && last == 0:
		if !errors.Is(err, errNothing) {
			t.Fatalf("nothing for nothing: %v, %v", v, err)
		}
	case amount <= last:
		if err != nil || v.Nonce != nonce || v.Amount.Uint64() != last {
			t.Fatalf("%d again: %v, %v", amount, v, err)
		}
	case m.forbids(l, amount, amount-last) != "":
		if rule := m.forbids(l, amount, amount-last); !errors.As(err, &over) || over.Rule != rule || v != nil {
			t.Fatalf("%d is forbidden by %s: %v, %v", amount, rule, v, err)
		}
	default:
		if err != nil || v.Nonce != max(nonce+1, uint64(m.now.UnixMilli())) || v.Amount.Uint64() != amount || v.Lane != l.lane || v.ChannelAddr != l.channel {
			t.Fatalf("%d: %+v, %v", amount, v, err)
		}
		m.today = max(m.today, dayOf(m.now))
		m.spent = append(m.spent, modelSpend{m.today, l.payee, amount - last})
		l.given = append(l.given, v)
	}
}

// deliver brings any voucher that was ever signed, so late, doubled or before
// others.
func (m *model) deliver(t *rapid.T) {
	l := m.lane(t)
	if len(l.given) == 0 {
		t.Skip("no voucher yet")
	}
	v := l.given[rapid.IntRange(0, len(l.given)-1).Draw(t, "voucher")]
	_, before := lastOf(l.took)
	amount, line := v.Amount.Uint64(), uint64(modelLine)
	if own, ok := m.lines[l.payee]; ok {
		line = own
	}
	worth, err := save(m.mem.Context(), m.tills[l.payee], v)
	want := max(before, amount)
	if sum := m.worth(l.payee) - before + want; amount > before && sum > line+m.paid[l.payee] {
		if want = before; !errors.Is(err, ErrCreditExceeded) {
			t.Fatalf("beyond the line: %s, %v", worth, err)
		}
	} else {
		must(m.mem, err)
		l.took = append(l.took, v)
	}
	if worth != voucher.Atto(want) {
		t.Fatalf("lane is worth %s, want %d", worth, want)
	}
}

func (m *model) settle(t *rapid.T) {
	payee, amount := rapid.IntRange(0, 1).Draw(t, "payee"), rapid.Uint64Range(1, 300).Draw(t, "amount")
	must(m.mem, m.tills[payee].Settle(m.mem.Context(), m.w.Address(), voucher.Atto(amount), ""))
	m.paid[payee] += amount
}

func (m *model) setCredit(t *rapid.T) {
	payee := rapid.IntRange(0, 1).Draw(t, "payee")
	m.lines[payee] = rapid.Uint64Range(0, 600).Draw(t, "line")
	must(m.mem, m.tills[payee].SetCredit(m.mem.Context(), m.w.Address(), voucher.Atto(m.lines[payee])))
}

func (m *model) setPolicy(t *rapid.T) {
	limit := func(name string) voucher.Amount {
		return voucher.Atto(rapid.SampledFrom([]uint64{0, 0, 100, 300, 1000}).Draw(t, name))
	}
	m.policy = Policy{limit("deal"), limit("provider"), limit("day"), limit("total")}
	must(m.mem, m.w.SetPolicy(m.mem.Context(), m.policy))
	m.today = dayOf(m.now)
}

func (m *model) clock(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(-30, 40).Draw(t, "hours")) * time.Hour)
}

func (m *model) killClient(*rapid.T) {
	must(m.mem, m.db[0].Close())
	m.startClient()
}

func (m *model) killProvider(*rapid.T) {
	must(m.mem, m.db[1].Close())
	m.startProvider()
}

// check compares what is owed with all that happened.
func (m *model) check(t *rapid.T) {
	for payee, till := range m.tills {
		_, owed, err := till.Credit(m.mem.Context(), m.w.Address())
		if want := voucher.Atto(m.worth(payee)).Sub(voucher.Atto(m.paid[payee])); err != nil || owed != want {
			t.Fatalf("owed %s, %v; want %s", owed, err, want)
		}
	}
}

// checkStatements compares all that both sides say with all that happened.
func (m *model) checkStatements(t *rapid.T) {
	for payee, till := range m.tills {
		var given uint64
		opened := false
		for _, l := range m.lanes {
			if _, amount := lastOf(l.given); l.payee == payee {
				given, opened = given+amount, true
			}
		}
		atWallet, err := m.w.Statement(m.mem.Context(), till.Address())
		if opened != (err == nil) || atWallet.Total != voucher.Atto(given) || opened && VerifyStatement(atWallet) != nil {
			t.Fatalf("wallet: %+v, %v; want %d", atWallet, err, given)
		}
		atTill, err := till.Statement(m.mem.Context(), m.w.Address())
		if errors.Is(err, ErrUnknownLane) {
			continue
		}
		if err != nil || VerifyStatement(atTill) != nil || atTill.Total != voucher.Atto(m.worth(payee)) || atTill.Settled != voucher.Atto(m.paid[payee]) {
			t.Fatalf("till: %+v, %v, %v", atTill, err, VerifyStatement(atTill))
		}
	}
}

// Whatever is asked in whatever order, with either side killed between any two
// steps, both sides say what the model says.
func TestModel(t *testing.T) {
	tables := empty(t)
	rapid.Check(t, func(r *rapid.T) {
		m := &model{mem: t, dir: t.TempDir(), now: noon, lines: map[int]uint64{}, paid: map[int]uint64{}}
		for _, name := range []string{"client", "provider"} {
			must(t, os.WriteFile(filepath.Join(m.dir, name), tables, 0o600))
		}
		m.startClient()
		m.startProvider()
		defer func() { _, _ = m.db[0].Close(), m.db[1].Close() }()
		r.Repeat(map[string]func(*rapid.T){
			"allocate": m.allocate, "set budget": m.setBudget,
			"sign": m.sign, "sign more": m.sign, "sign again": m.sign,
			"deliver": m.deliver, "deliver more": m.deliver, "deliver again": m.deliver,
			"settle": m.settle, "set credit": m.setCredit, "set policy": m.setPolicy, "clock": m.clock,
			"kill client": m.killClient, "kill provider": m.killProvider,
			"check": m.check,
		})
		m.check(r)
		m.checkStatements(r)
	})
}
