package piece

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A process that receives is killed again and again. What it synced is there
// afterwards, the next process continues, and all that is kept is whole.
func TestPartialKilled(t *testing.T) {
	root := rawCID(t, []byte("root"))
	if path := os.Getenv("PIECE_TEST_RECEIVE"); path != "" {
		receiveUntilKilled(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "x.car")
	var synced uint64
	for round := range 5 {
		child := exec.Command(os.Args[0], "-test.run=^TestPartialKilled$", "-test.timeout=60s")
		child.Env = append(os.Environ(), "PIECE_TEST_RECEIVE="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		for range 10 + round*3 {
			if _, err := fmt.Fscanln(lines, &synced); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for { // what it said before it died
			if _, err := fmt.Fscanln(lines, &synced); err != nil {
				break
			}
		}
		_, _ = io.Copy(io.Discard, lines)
		_ = child.Wait() // killed
		p, err := OpenPartial(path, root)
		if err != nil {
			t.Fatal(err)
		}
		if p.Written() < synced {
			t.Fatalf("round %d: %d bytes were synced, %d are there", round, synced, p.Written())
		}
		for i := range p.Blocks() {
			data := noise(i, int(i%50)*999)
			wantBlock(t, p, rawCID(t, data), data)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// receiveUntilKilled appends numbered blocks and says what is synced.
func receiveUntilKilled(t *testing.T, path string) {
	p, err := OpenPartial(path, rawCID(t, []byte("root")))
	if err != nil {
		t.Fatal(err)
	}
	for i := p.Blocks(); i < 1_000_000; i++ {
		data := noise(i, int(i%50)*999)
		mustPut(t, p, data)
		if i%5 == 0 {
			n, err := p.Sync()
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println(n)
		}
	}
}
