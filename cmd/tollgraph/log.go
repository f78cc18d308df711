package main

import (
	"log/slog"
	"os"

	golog "github.com/ipfs/go-log/v2"
)

// quiet sets up logging: errors only, unless GOLOG_LOG_LEVEL says otherwise.
// data-transfer logs events that come twice or late as errors of its own; they
// are ordinary, so by default its loggers are silent.
func quiet() {
	slog.SetDefault(logger("tollgraph"))
	if os.Getenv("GOLOG_LOG_LEVEL") != "" || os.Getenv("IPFS_LOGGING") != "" {
		return
	}
	for _, name := range []string{
		"fsm", "evtsm", "data-transfer", "dt-impl", "dt_graphsync", "dt-chanmon", "data_transfer_network",
		"graphsync", "graphsync_network", "gs-queryexecutor", "gs_request_executor",
	} {
		_ = golog.SetLogLevel(name, "fatal") // an unknown logger has nothing to silence
	}
}

// logger is the logger of one part, whose level GOLOG_LOG_LEVEL=name=level sets.
func logger(name string) *slog.Logger {
	return slog.New(golog.SlogHandler()).With("logger", name)
}
