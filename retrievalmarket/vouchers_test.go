package retrievalmarket

import (
	"errors"
	"testing"

	"github.com/tollgraph/tollgraph/voucher"
)

func TestCarriable(t *testing.T) {
	paid := voucher.Terms{Price: 1, Interval: 1 << 10}
	growing := voucher.Terms{Price: 1, Interval: 1 << 10, Increase: 1 << 10}
	for name, tc := range map[string]struct {
		terms          voucher.Terms
		expected, risk Bytes
		ok             bool
	}{
		"as many as fit":          {paid, maxVouchers << 10, 0, true},
		"one byte more":           {paid, maxVouchers<<10 + 1, 0, false},
		"not known":               {paid, 0, 0, true},
		"free":                    {voucher.Terms{}, 1 << 60, 0, true},
		"growing intervals":       {growing, maxVouchers << 20, 0, true},
		"steps of what is risked": {paid, maxVouchers << 12, 8<<12 + 8, true},
		"steps too small":         {paid, maxVouchers << 12, 8 << 12, false},
		"larger than anything":    {paid, voucher.MaxBytes, 0, false},
	} {
		if err := carriable(tc.terms, tc.expected, tc.risk); (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrTooManyPayments) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
