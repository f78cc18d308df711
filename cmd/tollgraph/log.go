package main

import (
	"context"
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
	return slog.New(errorTexts{golog.SlogHandler()}).With("logger", name)
}

// errorTexts writes errors as their text. go-log would write them as objects,
// which have no fields to show.
type errorTexts struct{ slog.Handler }

func (h errorTexts) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(errorText(a))
		return true
	})
	return h.Handler.Handle(ctx, out)
}

func (h errorTexts) WithAttrs(attrs []slog.Attr) slog.Handler {
	texts := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		texts[i] = errorText(a)
	}
	return errorTexts{h.Handler.WithAttrs(texts)}
}

func (h errorTexts) WithGroup(name string) slog.Handler {
	return errorTexts{h.Handler.WithGroup(name)}
}

func errorText(a slog.Attr) slog.Attr {
	if err, ok := a.Value.Any().(error); ok {
		return slog.String(a.Key, err.Error())
	}
	return a
}
