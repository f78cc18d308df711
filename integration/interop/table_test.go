package interop

import "github.com/ipld/go-ipld-prime/datamodel"

// sale is a deal whose payments are known in advance.
type sale struct {
	name               string
	sizes              []int // of the blocks, in the order of the walk
	part               int   // how many blocks are bought; 0 for the whole DAG
	price, unseal      uint64
	interval, increase uint64
	// payments are the cumulative amounts, worked out by hand: what unsealing
	// costs; then the bytes of each block that reaches the end of an interval,
	// from which on the next interval end is the first above them; then all.
	payments []uint64
}

// The ends of the intervals are: 10,000 and 1,000: 10000 21000 33000 46000
// 60000; 5,000 and 2,500: 5000 12500 22500 35000; 1,024 and 1,024: 1024 3072
// 6144 10240; 1,000 and 100: 1000 2100 3300 4600 6000 7500 9100 10800 12600
// 14500 16500.
var sales = []sale{
	{"one block under the first interval", []int{5000}, 0, 2, 0, 10_000, 1_000, []uint64{10_000}},
	{"one block on it", []int{10_000}, 0, 2, 0, 10_000, 1_000, []uint64{20_000}},
	{"one block over it", []int{10_001}, 0, 2, 0, 10_000, 1_000, []uint64{20_002}},
	{"one block, sealed", []int{10_001}, 0, 2, 77, 10_000, 1_000, []uint64{77, 20_079}},
	{"blocks divide, last under", times(34, 1000), 0, 2, 0, 10_000, 1_000, []uint64{20_000, 42_000, 66_000, 68_000}},
	{"blocks divide, last on", times(33, 1000), 0, 2, 0, 10_000, 1_000, []uint64{20_000, 42_000, 66_000}},
	{"blocks do not divide, last over, sealed", times(48, 700), 0, 3, 500, 10_000, 1_000, []uint64{500, 32_000, 63_500, 101_300}},
	{"blocks do not divide, last under", times(50, 700), 0, 3, 0, 10_000, 1_000, []uint64{31_500, 63_000, 100_800, 105_000}},
	{"1,000 and 0, last on", times(10, 300), 0, 1, 0, 1_000, 0, []uint64{1_200, 2_100, 3_000}},
	{"1,000 and 0, last under", times(11, 300), 0, 1, 0, 1_000, 0, []uint64{1_200, 2_100, 3_000, 3_300}},
	{"1,024 and 1,024", times(13, 512), 0, 5, 0, 1_024, 1_024, []uint64{5_120, 15_360, 30_720, 33_280}},
	{"5,000 and 2,500, last over", times(6, 4096), 0, 1, 0, 5_000, 2_500, []uint64{8_192, 16_384, 24_576}},
	{"a block longer than the interval", times(3, 5000), 0, 1, 9, 1_000, 100, []uint64{9, 5_009, 10_009, 15_009}},
	{"every byte an interval", times(3, 100), 0, 7, 0, 1, 0, []uint64{700, 1_400, 2_100}},
	{"an interval longer than the DAG", times(5, 2000), 0, 1, 0, 1 << 20, 1 << 20, []uint64{10_000}},
	{"a part", times(30, 1000), 12, 2, 0, 10_000, 1_000, []uint64{20_000, 24_000}},
	{"a part, ending on the interval, sealed", times(30, 1000), 10, 2, 1, 10_000, 1_000, []uint64{1, 20_001}},
	{"only unsealing", times(5, 2000), 0, 0, 12, 0, 0, []uint64{12}},
	{"free", times(20, 1000), 0, 0, 0, 0, 0, nil},
	{"free, intervals named", times(20, 1000), 0, 0, 0, 10_000, 1_000, nil},
	{"free, one block", []int{100}, 0, 0, 0, 0, 0, nil},
	{"free, a part", times(20, 1000), 3, 0, 0, 0, 0, nil},
}

// bytes is what the selection has.
func (s sale) bytes() (n uint64) {
	for i, size := range s.sizes {
		if s.part == 0 || i < s.part {
			n += uint64(size)
		}
	}
	return n
}

// total is what the deal costs.
func (s sale) total() uint64 {
	if len(s.payments) == 0 {
		return 0
	}
	return s.payments[len(s.payments)-1]
}

// selector selects the first part blocks, or all.
func (s sale) selector() datamodel.Node {
	if s.part == 0 {
		return wholeDAG
	}
	return firstBlocks(s.part)
}
