package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipld/go-ipld-prime/linking"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// The exit codes, which scripts rely on.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitPrice       = 4 // price or budget refused
	exitUnverified  = 5
	exitIncomplete  = 6
	exitInterrupted = 130
)

// exitError is an error whose exit code is known where it arises.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usagef is an error in how the program was called.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// kinds maps errors of the rooms to exit codes; the first that fits counts. A
// deal that stands still for want of money wraps ErrSuspended too.
var kinds = []struct {
	code int
	errs []error
}{
	{exitUsage, []error{selectors.ErrRefused}},
	{exitNotFound, []error{market.ErrNotFound, market.ErrNoDeal, piece.ErrNotFound, piece.ErrNoEntry, selectors.ErrNotFound}},
	{exitPrice, []error{
		market.ErrPrice, market.ErrBudget, market.ErrNoCredit, payment.ErrBudget,
		voucher.RefusedPrice, voucher.RefusedInterval, voucher.RefusedUnsealPrice, voucher.RefusedCredit,
	}},
	{exitUnverified, []error{voucher.ErrWrongBlock, piece.ErrBadBlock, piece.ErrNotCAR, piece.ErrTruncated}},
	{exitIncomplete, []error{market.ErrSuspended, piece.ErrIncomplete, context.DeadlineExceeded}},
	{exitInterrupted, []error{context.Canceled}},
}

// exitCode is what the program ends with after err.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if known := (*exitError)(nil); errors.As(err, &known) {
		return known.code
	}
	for _, k := range kinds {
		for _, target := range k.errs {
			if errors.Is(err, target) {
				return k.code
			}
		}
	}
	if wrong := (linking.ErrHashMismatch{}); errors.As(err, &wrong) {
		return exitUnverified
	}
	return exitFailed
}
