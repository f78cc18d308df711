package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"
)

// sections are where README.md speaks of the flags of which commands.
var sections = map[string][]string{
	"serve":                      {"serve"},
	"query and quote":            {"query", "quote"},
	"fetch":                      {"fetch"},
	"daemon":                     {"daemon"},
	"budget, ask and credit":     {"budget set", "ask set", "credit settle", "channel statement"},
	"bench":                      {"bench"},
	"demo, deals, store and car": {"demo", "deals list", "store rm", "car create"},
}

var flagName = regexp.MustCompile("--([a-z][a-z-]*)")

// TestReadmeFlags: README.md has every flag of every command, with its default, and
// none that a command does not have.
func TestReadmeFlags(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	of := map[string][]cli.Flag{}
	walk(new(app).root(), "", func(name string, cmd *cli.Command) {
		if len(shown(cmd)) > 0 {
			of[name] = shown(cmd)
		}
	})
	delete(of, "") // the flags of every command: Commands speaks of them
	serve := of["serve"]
	written := map[string]string{}
	for _, part := range strings.Split(string(text), "\n### ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		written[title], _, _ = strings.Cut(body, "\n## ")
	}
	for title, commands := range sections {
		body, found := written[title]
		if !found {
			t.Errorf("README.md has no section %q", title)
		}
		for _, name := range commands {
			flags := of[name]
			if flags == nil {
				t.Errorf("there is no %q with flags of its own", name)
			}
			if name == "daemon" { // it says that it takes those of serve
				flags = slices.DeleteFunc(slices.Clone(flags), func(f cli.Flag) bool { return hasNamed(serve, f.Names()[0]) })
			}
			for _, f := range flags {
				if !strings.Contains(body, "--"+f.Names()[0]) && !strings.Contains(body, name+" -"+f.Names()[0]) {
					t.Errorf("%q of README.md does not speak of --%s of %s", title, f.Names()[0], name)
				}
			}
			delete(of, name)
		}
	}
	for name := range of {
		t.Errorf("README.md speaks nowhere of the flags of %q", name)
	}
	rowsAreTrue(t, written)
}

// rowsAreTrue checks the tables: their flags exist, and have these defaults.
func rowsAreTrue(t *testing.T, written map[string]string) {
	t.Helper()
	all := map[string][]cli.Flag{}
	walk(new(app).root(), "", func(name string, cmd *cli.Command) { all[name] = shown(cmd) })
	rows := 0
	for title, commands := range sections {
		for line := range strings.SplitSeq(written[title], "\n") {
			cells := strings.Split(line, "|")
			if len(cells) != 5 || !strings.Contains(cells[1], "--") || !strings.Contains(cells[1], "`") || strings.Contains(cells[3], "as for fetch") {
				continue
			}
			rows++
			for _, match := range flagName.FindAllStringSubmatch(cells[1], -1) {
				var has []cli.Flag
				for _, name := range commands {
					has = append(has, named(all[name], match[1])...)
				}
				if len(has) == 0 {
					t.Errorf("%q of README.md has --%s, which none of %q has", title, match[1], commands)
				}
				for _, f := range has {
					if said, is := strings.TrimSpace(cells[2]), defaultOf(f); !sameDefault(said, is) {
						t.Errorf("%q of README.md says of --%s that its default is %q, and it is %q", title, match[1], said, is)
					}
				}
			}
		}
	}
	if rows < 30 {
		t.Errorf("only %d rows were found", rows)
	}
}

// sameDefault reports whether what README.md says of a default is so, where it does
// not say it in words.
func sameDefault(said, is string) bool {
	switch exact := strings.Trim(said, "`"); {
	case said == "":
		return is == "" || is == "false"
	case said == "`"+exact+"`":
		return is == exact || is == exact+"0s" // a duration
	}
	return true
}

// defaultOf is what f is if it is not given.
func defaultOf(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	return strings.Trim(d.GetValue(), "[]\"")
}

// walk calls do for every command below cmd, by its full name.
func walk(cmd *cli.Command, name string, do func(string, *cli.Command)) {
	do(name, cmd)
	for _, sub := range cmd.Commands {
		walk(sub, strings.TrimSpace(name+" "+sub.Name), do)
	}
}

// shown are the flags of cmd that --help shows.
func shown(cmd *cli.Command) []cli.Flag {
	return slices.DeleteFunc(slices.Clone(cmd.Flags), func(f cli.Flag) bool {
		v, ok := f.(cli.VisibleFlag)
		return ok && !v.IsVisible()
	})
}

func named(flags []cli.Flag, name string) []cli.Flag {
	return slices.DeleteFunc(slices.Clone(flags), func(f cli.Flag) bool { return !slices.Contains(f.Names(), name) })
}

func hasNamed(flags []cli.Flag, name string) bool { return len(named(flags, name)) > 0 }
