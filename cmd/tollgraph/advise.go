package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// advise adds to the error of a fetch what the user can do, and the exit code.
func (a *app) advise(ctx context.Context, err error) error {
	parked := (*parkedError)(nil)
	switch {
	case errors.As(err, &parked):
		return a.adviseParked(parked)
	case errors.Is(err, errTimeout):
		return &exitError{exitIncomplete, fmt.Errorf("incomplete: %w; to go on:\n  %s", err, a.again(nil))}
	case ctx.Err() != nil:
		return &exitError{exitInterrupted, fmt.Errorf("interrupted; what arrived is kept and paid for; to go on:\n  %s", a.again(nil))}
	case errors.Is(err, market.ErrSuspended):
		return &exitError{exitCode(err), fmt.Errorf("%w; what arrived is kept and paid for; to go on:\n  %s", err, a.again(nil))}
	}
	return adviseRefusal(err)
}

// adviseRefusal adds to the reason why nothing was begun what the user can do.
func adviseRefusal(err error) error {
	switch {
	case errors.Is(err, market.ErrNotFound):
		return fmt.Errorf("%w; check the CID, or name another provider; nothing was fetched or paid", err)
	case errors.Is(err, market.ErrPrice):
		return fmt.Errorf("%w; allow it with a higher --max-price, or tollgraph budget set --max-price where that is the limit", err)
	case errors.Is(err, market.ErrBudget):
		return fmt.Errorf("%w; allow it with a larger --budget", err)
	case errors.Is(err, payment.ErrBudget):
		return fmt.Errorf("%w; allow it with tollgraph budget set", err)
	case errors.Is(err, market.ErrUnreachable):
		return adviseUnreachable(err)
	}
	return err
}

// adviseUnreachable brings what libp2p tried into one line.
func adviseUnreachable(err error) error {
	other := sec.ErrPeerIDMismatch{}
	if errors.As(err, &other) {
		return &exitError{exitFailed, fmt.Errorf("%w: the node at that address is %s: check the end of --provider", market.ErrUnreachable, other.Actual)}
	}
	why := strings.Join(strings.Fields(err.Error()), " ")
	if dial := (*swarm.DialError)(nil); errors.As(err, &dial) && len(dial.DialErrors) > 0 {
		var tried []string
		for _, d := range dial.DialErrors {
			tried = append(tried, fmt.Sprintf("%s: %v", d.Address, d.Cause))
		}
		why = fmt.Sprintf("%v: %s at %s", market.ErrUnreachable, dial.Peer, strings.Join(tried, ", "))
	}
	return &exitError{exitFailed, fmt.Errorf("%s; check --provider, and that tollgraph serve runs there", why)}
}

// adviseOutput says of what was bought, and could not be written out, what the
// user can do.
func adviseOutput(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, errTimeout):
		return fmt.Errorf("everything is here and paid, but not written out: %w", err)
	case errors.Is(err, piece.ErrNoEntry):
		return fmt.Errorf("%w; what shows that is here and paid, and nothing else was bought", err)
	case errors.Is(err, piece.ErrUnsafeLink):
		err = fmt.Errorf("%w: allow --any-symlinks, or write a --car", err)
	case errors.Is(err, piece.ErrOutputExists):
		err = fmt.Errorf("%w: choose another with -o, or allow --overwrite", err)
	}
	return fmt.Errorf("everything is here and paid, but not written out: %w; fetched again it costs nothing", err)
}

// adviseParked says how much is missing. If the budget is not what is short,
// another limit of the wallet is, and the message says which.
func (a *app) adviseParked(e *parkedError) error {
	budget := e.need()
	if !e.state.TotalFunds.Less(budget) {
		return &exitError{exitPrice, fmt.Errorf("the deal waits for money: %w; to go on later:\n  %s", e, a.again(nil))}
	}
	return &exitError{exitPrice, fmt.Errorf("the budget is spent: %w; %s received, %s paid; to go on:\n  %s",
		e, e.state.TotalReceived.IEC(), e.state.FundsSpent.FIL(), a.again(&budget))}
}

// again is the command that was run, to be run again, with another budget if
// one is given.
func (a *app) again(budget *voucher.Amount) string {
	args := append([]string(nil), a.args...)
	if budget != nil {
		args = withFlag(args, "budget", strings.ReplaceAll(budget.FIL(), " ", ""))
	}
	for i, arg := range args {
		args[i] = shellQuoted(arg)
	}
	return strings.Join(args, " ")
}

// withFlag returns args with the flag set to value.
func withFlag(args []string, name, value string) []string {
	out := make([]string, 0, len(args)+2)
	for i := 0; i < len(args); i++ {
		flag, _, inline := strings.Cut(args[i], "=")
		if flag != "--"+name && flag != "-"+name {
			out = append(out, args[i])
			continue
		}
		if !inline {
			i++ // its value
		}
	}
	return append(out, "--"+name, value)
}

// shellQuoted returns s as one word for a POSIX shell.
func shellQuoted(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=@,+") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
