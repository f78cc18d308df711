// Command tollgraph sells and buys verified content by the byte.
//
// It is wiring: flags and config.toml become the structs that the rooms take,
// and what the rooms answer becomes a line for people or an object for
// machines. Data goes to standard output, everything else to standard error.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal kills
	heap := spare()
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	runtime.KeepAlive(heap)
	stop()
	os.Exit(code)
}
