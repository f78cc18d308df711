package payment

import (
	"sync"
	"testing"

	"github.com/tollgraph/tollgraph/voucher"
)

// parallel runs each in n goroutines that do b.N things together.
func parallel(b *testing.B, n int, each func(worker, i int)) {
	var wg sync.WaitGroup
	for worker := range n {
		wg.Go(func() {
			for i := worker; i < b.N; i += n {
				each(worker, i/n+1)
			}
		})
	}
	wg.Wait()
}

func BenchmarkSign(b *testing.B) {
	for name, n := range map[string]int{"1": 1, "32": 32} {
		b.Run(name, func(b *testing.B) {
			w := newWallet(b, fresh(b), keyOf(b, 1), Policy{PerDay: voucher.OneFIL})
			ch := channelTo(b, w, keyOf(b, 2).Address())
			lanes := make([]uint64, n)
			for i := range lanes {
				lanes[i] = laneIn(b, w, ch)
			}
			b.ResetTimer()
			parallel(b, n, func(worker, i int) {
				if _, err := w.CreatePaymentVoucher(b.Context(), ch, voucher.Atto(uint64(i)), lanes[worker]); err != nil {
					b.Error(err)
				}
			})
		})
	}
}

func BenchmarkSave(b *testing.B) {
	for name, n := range map[string]int{"1": 1, "32": 32} {
		b.Run(name, func(b *testing.B) {
			payer, payee := keyOf(b, 1), keyOf(b, 2).Address()
			till := newTill(b, fresh(b), payee, voucher.OneFIL)
			vouchers := make([][]*voucher.SignedVoucher, n)
			for worker := range vouchers {
				for i := 1; i <= b.N/n+1; i++ {
					vouchers[worker] = append(vouchers[worker], signed(b, payer, payee, uint64(worker), uint64(i), uint64(i)))
				}
			}
			b.ResetTimer()
			parallel(b, n, func(worker, i int) {
				if _, err := save(b.Context(), till, vouchers[worker][i-1]); err != nil {
					b.Error(err)
				}
			})
		})
	}
}
