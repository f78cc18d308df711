package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
	"golang.org/x/term"
)

// version is set by the linker; see Makefile.
var version = ""

// app is one run of the program: how it was called and where it writes.
type app struct {
	args []string  // as given, the program's name first
	out  io.Writer // data
	err  io.Writer // everything else
}

// run runs the program and returns its exit code. When ctx ends, what runs is
// stopped in order.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	quiet()
	a := &app{args: args, out: stdout, err: stderr}
	err := a.root().Run(ctx, args)
	if known := (*exitError)(nil); ctx.Err() != nil && errors.Is(err, context.Canceled) && !errors.As(err, &known) {
		err = &exitError{exitInterrupted, errors.New("interrupted")} // nothing is lost of what nobody advised on
	}
	if err != nil {
		fmt.Fprintln(stderr, told(err))
	}
	return exitCode(err)
}

// told is err for people: a line per thing that went wrong, none of them twice,
// and indented the command that goes on.
func told(err error) string {
	var lines []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		switch {
		case strings.HasPrefix(line, "  "):
			lines = append(lines, line)
		case !slices.ContainsFunc(lines, func(said string) bool { return strings.Contains(said, line) }):
			lines = append(lines, "tollgraph: "+line)
		}
	}
	return strings.Join(lines, "\n")
}

// root is the tree of commands.
func (a *app) root() *cli.Command {
	root := &cli.Command{
		Name:                      "tollgraph",
		Usage:                     "sell and buy verified content by the byte",
		Writer:                    a.out,
		ErrWriter:                 a.err,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		Suggest:                   true,
		ExitErrHandler:            func(context.Context, *cli.Command, error) {}, // run prints and decides
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "repo", Usage: "`DIR` for keys, database, blocks and config.toml", Value: defaultRepo(), DefaultText: "~/.tollgraph", Sources: cli.EnvVars("TOLLGRAPH_PATH")},
			&cli.BoolFlag{Name: "json", Usage: "print JSON for machines"},
			&cli.BoolFlag{Name: "version", Aliases: []string{"v"}, Usage: "print the version", Local: true},
		},
		Commands: []*cli.Command{
			a.demoCommand(), a.serveCommand(), a.daemonCommand(), a.queryCommand(), a.quoteCommand(), a.fetchCommand(),
			a.dealsCommand(), a.storeCommand(), a.askCommand(), a.budgetCommand(), a.walletCommand(), a.channelCommand(), a.creditCommand(), a.carCommand(), a.benchCommand(),
		},
		Action: a.top,
	}
	usageErrors(root)
	return root
}

// top runs without a command.
func (a *app) top(_ context.Context, cmd *cli.Command) error {
	switch {
	case cmd.Bool("version") && cmd.Bool("json"):
		return a.printJSON(map[string]string{"version": versionText()})
	case cmd.Bool("version"):
		_, err := fmt.Fprintf(a.out, "tollgraph %s\n", versionText())
		return err
	}
	return group(cmd)
}

// group is the action of a command that has commands below it.
func group(cmd *cli.Command) error {
	if cmd.Args().Present() {
		return usagef("there is no command %q; see %s --help", cmd.Args().First(), cmd.FullName())
	}
	return cli.ShowSubcommandHelp(cmd)
}

// usageErrors makes every error in the use of flags one with exit code 2.
func usageErrors(cmd *cli.Command) {
	cmd.OnUsageError = func(_ context.Context, cmd *cli.Command, err error, _ bool) error {
		return usagef("%w; see %s --help", err, cmd.FullName())
	}
	for _, sub := range cmd.Commands {
		usageErrors(sub)
	}
}

// versionText is the version of this binary: the linker's, or the module's.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}

func defaultRepo() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ".tollgraph"
	}
	return filepath.Join(home, ".tollgraph")
}

// printJSON writes v as one line to standard output.
func (a *app) printJSON(v any) error { return json.NewEncoder(a.out).Encode(v) }

// sayf tells people something.
func (a *app) sayf(format string, args ...any) { fmt.Fprintf(a.err, format+"\n", args...) }

// terminal reports whether w is one, so that progress may be drawn on it.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
