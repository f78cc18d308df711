package piece

import (
	"context"
	"io"
	"path/filepath"
	"testing"
)

// BenchmarkExport measures the ways out of a Partial, and verifying, over 128 MiB.
func BenchmarkExport(b *testing.B) {
	const size = 128 << 20
	ctx := context.Background()
	car, r := create(b, CreateOptions{}, write(b, filepath.Join(b.TempDir(), "f"), noise(1, size)))
	ls := received(b, car, r.Root).LinkSystem()
	out := filepath.Join(b.TempDir(), "out")
	for _, c := range []struct {
		name string
		run  func() error
	}{
		{"Cat", func() error { return Cat(ctx, ls, r.Root, "", io.Discard, 0, -1) }},
		{"Extract", func() error {
			_, err := Extract(ctx, ls, r.Root, "", out, ExportOptions{Overwrite: true})
			return err
		}},
		{"WriteCAR", func() error { _, _, err := WriteCAR(ctx, ls, r.Root, nil, io.Discard); return err }},
		{"VerifyCAR", func() error { _, err := VerifyCAR(ctx, car); return err }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if err := c.run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
