package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/tollgraph/tollgraph/piece"
	"github.com/tollgraph/tollgraph/voucher"
)

func (a *app) carCommand() *cli.Command {
	return &cli.Command{
		Name:   "car",
		Usage:  "make and check CAR files",
		Action: func(_ context.Context, cmd *cli.Command) error { return group(cmd) },
		Commands: []*cli.Command{
			{
				Name: "create", Usage: "pack files and directories as a UnixFS DAG; prints the root", ArgsUsage: "PATH...", Action: a.createCAR,
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "the CAR to write; default: the path's last name with .car"},
					&cli.BoolFlag{Name: "wrap", Usage: "put a single path into a directory, which keeps its name"},
					&cli.BoolFlag{Name: "overwrite", Usage: "replace the output if it exists"},
					&cli.StringFlag{Name: "chunk-size", Value: "1MiB", Usage: "`SIZE` of the pieces that files are cut into, at most 2MiB"},
				},
			},
			{Name: "verify", Usage: "check every block of CAR files, and that their DAGs are whole", ArgsUsage: "CAR...", Action: a.verifyCAR},
		},
	}
}

// maxChunk is the longest piece of a file that other nodes take.
const maxChunk = 2 << 20

// created is the result of car create as JSON.
type created struct {
	Root      string `json:"root"`
	Output    string `json:"output"`
	Blocks    uint64 `json:"blocks"`
	Bytes     uint64 `json:"bytes"`
	FileBytes uint64 `json:"file_bytes"`
}

func (a *app) createCAR(ctx context.Context, cmd *cli.Command) error {
	r := reader{Command: cmd}
	paths, out, chunk := r.Args().Slice(), r.String("output"), r.bytes("chunk-size")
	switch {
	case r.err != nil:
		return r.err
	case len(paths) == 0:
		return usagef("name at least one file or directory to pack")
	case out == "" && len(paths) > 1:
		return usagef("name the CAR with -o: there are several paths")
	case out == "":
		whole, err := filepath.Abs(paths[0])
		if err != nil {
			return err
		}
		out = filepath.Base(whole) + ".car"
	}
	if chunk == 0 || chunk > maxChunk {
		return usagef("--chunk-size %q: give 1 to 2MiB", r.String("chunk-size"))
	}
	if err := checkFolder(out); err != nil {
		return err
	}
	got, err := piece.Create(ctx, out, paths, piece.CreateOptions{ChunkSize: int64(min(chunk, 1<<62)), Wrap: r.Bool("wrap"), Overwrite: r.Bool("overwrite")})
	if errors.Is(err, piece.ErrOutputExists) {
		err = fmt.Errorf("%w: choose another with -o, or allow --overwrite", err)
	}
	if err != nil {
		return err
	}
	if r.Bool("json") {
		return a.printJSON(created{got.Root.String(), out, got.Blocks, got.Bytes, got.FileBytes})
	}
	a.sayf("%s: %s, %s, of %s in files", out, count(got.Blocks, "block"), voucher.Bytes(got.Bytes).IEC(), voucher.Bytes(got.FileBytes).IEC())
	_, err = fmt.Fprintln(a.out, got.Root)
	return err
}

// verdict is the result of car verify for one file as JSON.
type verdict struct {
	Path      string   `json:"path"`
	OK        bool     `json:"ok"`
	Roots     []string `json:"roots"`
	Blocks    uint64   `json:"blocks"`
	Bytes     uint64   `json:"bytes"`
	Reachable uint64   `json:"reachable_blocks"`
	Error     string   `json:"error,omitempty"`
}

func (a *app) verifyCAR(ctx context.Context, cmd *cli.Command) error {
	if !cmd.Args().Present() {
		return usagef("name at least one CAR file")
	}
	var failed []error
	for _, path := range cmd.Args().Slice() {
		got, err := piece.VerifyCAR(ctx, path)
		if errors.Is(err, piece.ErrIncomplete) || errors.As(err, new(*piece.SectionError)) {
			err = &exitError{exitUnverified, err}
		}
		v := verdict{Path: path, OK: err == nil, Roots: []string{}, Blocks: got.Blocks, Bytes: got.Bytes, Reachable: got.Reachable}
		for _, root := range got.Roots {
			v.Roots = append(v.Roots, root.String())
		}
		if err != nil {
			v.Error = err.Error()
			failed = append(failed, err)
		}
		if err := a.printVerdict(v, cmd.Bool("json")); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

// printVerdict writes one line per file.
func (a *app) printVerdict(v verdict, asJSON bool) error {
	if asJSON {
		return a.printJSON(v)
	}
	if !v.OK {
		return nil // the error is printed at the end
	}
	_, err := fmt.Fprintf(a.out, "%s: good: roots %v, %d blocks, %d bytes, %d reachable\n", v.Path, v.Roots, v.Blocks, v.Bytes, v.Reachable)
	return err
}
