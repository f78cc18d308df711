package revalidator

import (
	"math/bits"

	"github.com/tollgraph/tollgraph/voucher"
)

// Boundary returns B_k = k·I + J·k(k−1)/2, the byte count at which the k-th
// payment interval of t ends; B_0 is 0. It saturates at voucher.MaxBytes. An
// interval of 0, which validation refuses for anything paid, counts as 1 so
// that boundaries always rise. Source: the boundaries of the Filecoin
// retrieval market, where they were found with a loop.
func Boundary(t voucher.Terms, k uint64) voucher.Bytes {
	hi, flat := bits.Mul64(k, uint64(max(t.Interval, 1)))
	if hi != 0 {
		return voucher.MaxBytes
	}
	pairsHi, pairs := triangle(k)
	if t.Increase != 0 && pairsHi != 0 {
		return voucher.MaxBytes
	}
	hi, grown := bits.Mul64(pairs, uint64(t.Increase))
	if hi != 0 {
		return voucher.MaxBytes
	}
	return voucher.Bytes(flat).Add(voucher.Bytes(grown))
}

// triangle returns k(k−1)/2 as a 128-bit number.
func triangle(k uint64) (hi, lo uint64) {
	if k == 0 {
		return 0, 0
	}
	hi, lo = bits.Mul64(k, k-1)
	return hi >> 1, hi<<63 | lo>>1
}

// intervals returns the largest k with B_k ≤ n. The search is over k and takes
// at most 64 steps whatever the terms say.
func intervals(t voucher.Terms, n voucher.Bytes) uint64 {
	lo, hi := uint64(0), uint64(n/max(t.Interval, 1)) // B_k ≥ k·I
	if t.Increase == 0 {
		return hi
	}
	for lo < hi {
		mid := hi - (hi-lo)/2
		if b := Boundary(t, mid); b <= n && b != voucher.MaxBytes {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return lo
}

// LastBoundary returns the largest boundary of t that is at most n.
func LastBoundary(t voucher.Terms, n voucher.Bytes) voucher.Bytes {
	return Boundary(t, intervals(t, n))
}

// NextBoundary returns the smallest boundary of t above n, or voucher.MaxBytes
// if there is none.
func NextBoundary(t voucher.Terms, n voucher.Bytes) voucher.Bytes {
	k := intervals(t, n)
	if k == ^uint64(0) {
		return voucher.MaxBytes
	}
	return Boundary(t, k+1)
}
