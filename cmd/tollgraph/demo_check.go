package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// maxStalls is how often a sale that is paid ahead may stand still for money.
const maxStalls = 3

// bookTimeout is how long the provider may take to write down the end of a sale.
const bookTimeout = 10 * time.Second

// check returns what is off about a sale.
func (d *demo) check(ctx context.Context, p purchase, got receipt) error {
	sum, err := sumTree(p.output.path)
	if err != nil {
		return err
	}
	if sum != d.sum {
		return &exitError{exitUnverified, fmt.Errorf("the files that were bought have SHA-256 %x, those that were sold %x", sum, d.sum)}
	}
	provider, err := d.providerBooks(ctx, got.state.ID)
	if err != nil {
		return err
	}
	return errors.Join(d.checkBooks(got, provider), checkPayments(p, got))
}

// providerBooks waits for the provider to complete the deal.
func (d *demo) providerBooks(ctx context.Context, id market.DealID) (market.ProviderDealState, error) {
	ctx, cancel := context.WithTimeout(ctx, bookTimeout)
	defer cancel()
	for {
		select {
		case s := <-d.done:
			if s.ID == id {
				return s, nil
			}
		case <-ctx.Done():
			return market.ProviderDealState{}, fmt.Errorf("the provider has not completed deal %d after %s", id, bookTimeout)
		}
	}
}

// checkBooks compares the books of both sides with each other and with what
// was sold.
func (d *demo) checkBooks(got receipt, p market.ProviderDealState) error {
	c := got.state
	cost := demoPrice.Of(voucher.Bytes(d.car.Bytes))
	switch {
	case uint64(c.TotalReceived) != d.car.Bytes || got.Blocks != d.car.Blocks:
		return fmt.Errorf("%d bytes in %d blocks were sold, the client counts %d in %d", d.car.Bytes, d.car.Blocks, c.TotalReceived, got.Blocks)
	case p.TotalSent != c.TotalReceived:
		return fmt.Errorf("the provider counts %d bytes, the client %d", p.TotalSent, c.TotalReceived)
	case c.FundsSpent != cost:
		return fmt.Errorf("the client paid %s attoFIL, bytes × price is %s", c.FundsSpent, cost)
	case p.FundsReceived != cost:
		return fmt.Errorf("the provider received %s attoFIL, bytes × price is %s", p.FundsReceived, cost)
	}
	return nil
}

// checkPayments checks that the sale was paid in the way that it was meant to.
func checkPayments(p purchase, got receipt) error {
	steps := int(got.state.TotalReceived / demoInterval)
	switch {
	case p.atRisk != nil && got.Payments < steps*15/16:
		return fmt.Errorf("%d intervals were paid strictly after receipt with only %d payments", steps, got.Payments)
	case p.atRisk == nil && got.Stalls > maxStalls:
		return fmt.Errorf("the transfer stood still %d times although it was paid ahead; at most %d are allowed", got.Stalls, maxStalls)
	}
	return nil
}
