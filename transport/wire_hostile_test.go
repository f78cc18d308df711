package transport

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	gsmsg "github.com/ipfs/go-graphsync/message"
	"pgregory.net/rapid"
)

func cborHeadHex(major byte, n uint64) string { return hex.EncodeToString(appendHead(nil, major, n)) }

// TestDecodeRefuses feeds forms that must be refused, and says why.
func TestDecodeRefuses(t *testing.T) {
	const open = "a163677332"
	id := "50" + strings.Repeat("01", 16)
	req := func(body string) string { return open + "a1" + "63726571" + "81" + body }
	rsp := func(body string) string { return open + "a1" + "63727370" + "81" + body }
	blk := func(body string) string { return open + "a1" + "63626c6b" + "81" + body }
	ext := func(value string) string {
		return req("a3" + "626964" + id + "6474797065" + "6175" + "63657874a16178" + value)
	}
	for _, c := range []struct {
		name, hex string
		want      error
	}{
		{"empty", "", nil},
		{"empty root", "a0", errMalformed},
		{"root null", "f6", errMalformed},
		{"message null", open + "f6", errMalformed},
		{"other root", "a163677331a0", errMalformed},
		{"trailing", open + "a0" + "00", errMalformed},
		{"truncated", open + "a1", nil},
		{"indefinite map", open + "bfff", errMalformed},
		{"long length", open + "b800", errMalformed},
		{"unknown field", open + "a1" + "63616263" + "00", errMalformed},
		{"long field name", open + "a1" + "68" + hex.EncodeToString([]byte("requests")) + "80", ErrMessageForm},
		{"tagged list", open + "a1" + "63726571" + "c180", ErrMessageForm},
		{"field twice", open + "a2" + "63726571" + "80" + "63726571" + "80", errMalformed},
		{"blocks null", open + "a1" + "63626c6b" + "f6", errMalformed},
		{"block of three", blk("83" + "4400701220" + "40" + "40"), errMalformed},
		{"block of one", blk("81" + "4400701220"), errMalformed},
		{"block without hash", blk("82" + "45015580e803" + "20" + "40"), nil},
		{"block prefix empty", blk("82" + "40" + "40"), nil},
		{"block digest huge", blk("82" + "47" + "01551e" + "ffffff7f" + "40"), ErrMessageLimit},
		{"identity huge", blk("82" + "45" + "01550081" + "01" + "5881" + strings.Repeat("00", 129)), ErrMessageLimit},
		{"billion blocks", open + "a1" + "63626c6b" + "9a40000000", nil},
		{"request id short", req("a2" + "626964" + "4101" + "6474797065" + "6163"), nil},
		{"request without type", req("a1" + "626964" + id), errMalformed},
		{"request type r", req("a2" + "626964" + id + "6474797065" + "6172"), errMalformed},
		{"selector null", req("a3" + "626964" + id + "6474797065" + "616e" + "6373656c" + "f6"), errMalformed},
		{"root not a link", req("a3" + "626964" + id + "6474797065" + "616e" + "64726f6f74" + "4101"), errMalformed},
		{"root wrong multibase", req("a3" + "626964" + id + "6474797065" + "616e" + "64726f6f74" + "d82a4101"), errMalformed},
		{"priority too low", req("a3" + "626964" + id + "6474797065" + "616e" + "63707269" + "3b8000000000000000"), errMalformed},
		{"priority text", req("a3" + "626964" + id + "6474797065" + "616e" + "63707269" + "6130"), errMalformed},
		{"status unknown", rsp("a2" + "657265716964" + id + "6473746174" + "1863"), errMalformed},
		{"status missing", rsp("a1" + "657265716964" + id), errMalformed},
		{"action unknown", rsp("a3" + "657265716964" + id + "6473746174" + "0e" + "646d657461" + "8182" +
			"d82a4500015500" + "00" + "6178"), errMalformed},
		{"deep extension", ext(strings.Repeat("81", MaxMessageDepth) + "00"), ErrMessageLimit},
		{"wide extension", ext(cborHeadHex(majorArray, MaxMessageNodes) + strings.Repeat("00", MaxMessageNodes)), ErrMessageLimit},
		{"lying extension", ext("9a40000000"), nil},
		{"extension NaN", ext("fb7ff8000000000000"), nil},
		{"extension twice", req("a3" + "626964" + id + "6474797065" + "6175" + "63657874a2" + "6178006178" + "00"), errMalformed},
		{"long cid", req("a3" + "626964" + id + "6474797065" + "616e" + "64726f6f74" + "d82a" + cborHeadHex(majorBytes, 700) +
			strings.Repeat("00", 700)), ErrMessageLimit},
	} {
		buf, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(c.name, err)
		}
		if _, err = decodeOurs(buf); err == nil {
			t.Errorf("%s: accepted", c.name)
		} else if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if _, stockErr := decodeStock(buf); stockErr == nil && !errors.Is(err, ErrMessageLimit) && !errors.Is(err, ErrMessageForm) {
			t.Errorf("%s: the stock decoder accepts it", c.name)
		}
	}
}

// TestDecodeAccepts feeds odd forms that the stock decoder accepts.
func TestDecodeAccepts(t *testing.T) {
	const open = "a163677332"
	id := "50" + strings.Repeat("01", 16)
	req := func(body string) string { return open + "a1" + "63726571" + "81" + body }
	for name, text := range map[string]string{
		"empty message":    open + "a0",
		"empty lists":      open + "a3" + "63727370" + "80" + "63626c6b" + "80" + "63726571" + "80",
		"type first":       req("a2" + "6474797065" + "6163" + "626964" + id),
		"new without root": req("a2" + "6474797065" + "616e" + "626964" + id),
		"priority wraps":   req("a3" + "626964" + id + "6474797065" + "616e" + "63707269" + "1b0000000100000005"),
		"priority highest": req("a3" + "626964" + id + "6474797065" + "616e" + "63707269" + "1bffffffffffffff05"),
		"priority lowest":  req("a3" + "626964" + id + "6474797065" + "616e" + "63707269" + "3b7fffffffffffffff"),
		"extension undef":  req("a3" + "626964" + id + "6474797065" + "6175" + "63657874a16178f7"),
		"extension uint":   req("a3" + "626964" + id + "6474797065" + "6175" + "63657874a16178" + "1bffffffffffffffff"),
		"empty extensions": req("a3" + "626964" + id + "6474797065" + "6175" + "63657874a0"),
		"tag inside":       req("a3" + "626964" + id + "6474797065" + "6175" + "63657874a16178" + "81c100"),
		"deepest": req("a3" + "626964" + id + "6474797065" + "6175" + "63657874a16178" +
			strings.Repeat("81", MaxMessageDepth-extensionDepth) + "00"),
	} {
		buf, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(name, err)
		}
		stock, err := decodeStock(buf)
		if err != nil {
			t.Errorf("%s: stock: %v", name, err)
			continue
		}
		ours, err := decodeOurs(buf)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if describe(ours) != describe(stock) {
			t.Errorf("%s:\nours  %s\nstock %s", name, describe(ours), describe(stock))
		}
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestDecodeMemory bounds what hostile messages of 4 MiB make the decoder allocate.
func TestDecodeMemory(t *testing.T) {
	fill := func(head string, most int, unit []byte) []byte {
		b, _ := hex.DecodeString(head)
		n := min(most, (DefaultMaxMessageSize-len(b)-9)/len(unit))
		b = appendHead(b, majorArray, uint64(n))
		return append(b, bytes.Repeat(unit, n)...)
	}
	unit := func(s string) []byte { b, _ := hex.DecodeString(s); return b }
	id := "50" + strings.Repeat("01", 16)
	const open = "a163677332a1"
	const extended = open + "63726571" + "81" + "a3" + "626964"
	for name, buf := range map[string][]byte{
		"blocks":   fill(open+"63626c6b", MaxMessageBlocks, unit("82"+"4400701220"+"40")),
		"requests": fill(open+"63726571", MaxMessageParts, unit("a2"+"626964"+id+"6474797065"+"6163")),
		"metadata": fill(open+"63727370"+"81"+"a3"+"657265716964"+id+"6473746174"+"0e"+"646d657461",
			math.MaxInt, unit("82"+"d82a45"+"0001550000"+"6170")),
		"lists": fill(extended+id+"6474797065"+"6175"+"63657874a16178", MaxMessageNodes-1, unit("80")),
		"maps":  fill(extended+id+"6474797065"+"6175"+"63657874a16178", MaxMessageNodes/3, unit("a1617800")),
		"links": fill(extended+id+"6474797065"+"6175"+"63657874a16178", MaxMessageNodes-1, unit("d82a45"+"0001550000")),
	} {
		var err error
		got := allocated(func() { _, err = decodeOurs(buf) })
		t.Logf("%s: %d KiB of input, %d KiB allocated", name, len(buf)>>10, got>>10)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got > 4*uint64(len(buf))+40<<20 {
			t.Errorf("%s: %d bytes allocated for %d", name, got, len(buf))
		}
	}
}

// checkDifferential holds our decoder to the stock one: what we accept it
// accepts and means the same, and what it accepts we refuse for a documented
// reason only. It reports whether payload was accepted.
func checkDifferential(t interface{ Fatalf(string, ...any) }, payload []byte) bool {
	stock, stockErr := decodeStock(payload)
	ours, err := decodeOurs(bytes.Clone(payload))
	switch {
	case err == nil && stockErr != nil:
		t.Fatalf("%x accepted, but stock says: %v", payload, stockErr)
	case err == nil && describe(ours) != describe(stock):
		t.Fatalf("%x\nours\n%s\nstock\n%s", payload, describe(ours), describe(stock))
	case err != nil && stockErr == nil && !errors.Is(err, ErrMessageLimit) && !errors.Is(err, ErrMessageForm):
		t.Fatalf("%x refused, but stock accepts: %v", payload, err)
	}
	return err == nil
}

// TestDecodeMutations damages good messages a little, which leaves many of
// them good enough to get deep into the decoders.
func TestDecodeMutations(t *testing.T) {
	tried, accepted := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		framed, err := encodeStock(drawMessage(t, 2))
		if err != nil {
			t.Fatal(err)
		}
		good := payloadOf(t, framed)
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for range 100 {
			bad := bytes.Clone(good)
			for range 1 + rnd.IntN(2) {
				bad = mutate(rnd, bad)
			}
			tried++
			if checkDifferential(t, bad) {
				accepted++
			}
		}
	})
	t.Logf("%d damaged messages, %d accepted by both", tried, accepted)
}

func mutate(rnd *rand.Rand, b []byte) []byte {
	if len(b) == 0 {
		return b
	}
	i := rnd.IntN(len(b))
	switch rnd.IntN(5) {
	case 0:
		b[i] ^= 1 << rnd.IntN(8)
	case 1:
		b[i] += byte(rnd.IntN(3)) - 1
	case 2:
		b = slices.Insert(b, i, []byte{0xc1, 0xf6, 0xf7, 0x80, 0xa0, 0x00, 0x5f, 0xff}[rnd.IntN(8)])
	case 3:
		b = slices.Delete(b, i, min(len(b), i+1+rnd.IntN(3)))
	case 4:
		j := min(len(b), i+rnd.IntN(40))
		b = slices.Insert(b, i, bytes.Clone(b[i:j])...)
	}
	return b
}

// FuzzDecodeDifferential is checkDifferential on arbitrary bytes.
func FuzzDecodeDifferential(f *testing.F) {
	for i := range 40 {
		m := rapid.Custom(func(t *rapid.T) gsmsg.GraphSyncMessage { return drawMessage(t, 3) }).Example(i)
		if framed, err := encodeStock(m); err == nil {
			f.Add(payloadOf(f, framed))
		}
	}
	framed, err := encodeStock(goldenMessage(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payloadOf(f, framed))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > 1<<16 {
			return
		}
		checkDifferential(t, payload)
	})
}
