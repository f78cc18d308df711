package payment_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/voucher"
)

// openNode opens the database of a node and makes the tables of this package.
func openNode(ctx context.Context, path string) *sql.DB {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)")
	if err == nil {
		err = payment.Migrate(ctx, db)
	}
	if err != nil {
		log.Fatal(err)
	}
	return db
}

// A client buys on account: it pays as bytes arrive, up to what it set for the
// deal and up to what the provider lends it, and settles the bill.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "tollgraph-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	clientDB, providerDB := openNode(ctx, filepath.Join(dir, "client.db")), openNode(ctx, filepath.Join(dir, "provider.db"))
	defer clientDB.Close()
	defer providerDB.Close()
	clientKey, _ := payment.LoadOrCreateKey(filepath.Join(dir, "client.key"))
	providerKey, _ := payment.LoadOrCreateKey(filepath.Join(dir, "provider.key"))

	wallet, err := payment.NewWallet(clientDB, clientKey, payment.WalletConfig{})
	if err != nil {
		log.Fatal(err)
	}
	till, err := payment.NewTill(providerDB, providerKey.Address(), payment.TillConfig{DefaultCredit: voucher.Atto(1500)})
	if err != nil {
		log.Fatal(err)
	}

	budget := voucher.Atto(2000)
	channel, _ := wallet.GetOrCreatePaymentChannel(ctx, wallet.Address(), till.Address(), budget)
	lane, _ := wallet.AllocateLane(ctx, channel, budget)
	for _, cost := range []uint64{1000, 1800, 2200} {
		v, err := wallet.CreatePaymentVoucher(ctx, channel, voucher.Atto(cost), lane)
		if errors.Is(err, payment.ErrBudget) {
			fmt.Println(cost, "is over the budget of the deal: not signed")
			break
		}
		paid, err := till.SaveDealVoucher(ctx, "deal 1", channel, v, voucher.Amount{})
		if errors.Is(err, payment.ErrCreditExceeded) {
			fmt.Println(cost, "is over the credit line: the bill is paid first")
			if err := till.Settle(ctx, wallet.Address(), paid, "invoice 1"); err != nil {
				log.Fatal(err)
			}
			paid, err = till.SaveDealVoucher(ctx, "deal 1", channel, v, voucher.Amount{})
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("paid", paid)
	}
	bill, _ := till.Statement(ctx, wallet.Address())
	fmt.Println("owed", bill.Owed, "of", bill.Total, "verified:", payment.VerifyStatement(bill) == nil)
	// Output:
	// paid 1000
	// 1800 is over the credit line: the bill is paid first
	// paid 1800
	// 2200 is over the budget of the deal: not signed
	// owed 800 of 1800 verified: true
}
