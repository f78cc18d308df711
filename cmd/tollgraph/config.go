package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/BurntSushi/toml"
	"github.com/urfave/cli/v3"
)

// configured are the tables of config.toml: the commands whose flags it may
// set. A key is a flag's name.
var configured = []string{"serve", "fetch", "daemon"}

// configure sets the flags of cmd that neither the command line nor the
// environment set from the table of config.toml in the repo, if there is one.
func configure(cmd *cli.Command, table string) error {
	path := filepath.Join(cmd.String("repo"), "config.toml")
	var file map[string]map[string]any
	if _, err := toml.DecodeFile(path, &file); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if unread := (*fs.PathError)(nil); errors.As(err, &unread) {
		return fmt.Errorf("repo: %w", err)
	} else if err != nil {
		return usagef("%s: %w", path, err)
	}
	for name := range file {
		if !slices.Contains(configured, name) {
			return usagef("%s: there is no table [%s]; known are %v", path, name, configured)
		}
	}
	for key, value := range file[table] {
		if !hasFlag(cmd, key) {
			return usagef("%s: [%s] has no key %q; see tollgraph %s --help", path, table, key, table)
		}
		if cmd.IsSet(key) {
			continue
		}
		if err := setFlag(cmd, key, value); err != nil {
			return usagef("%s: [%s] %s: %w", path, table, key, err)
		}
	}
	return nil
}

// hasFlag reports whether name is a flag of cmd itself.
func hasFlag(cmd *cli.Command, name string) bool {
	return name != "help" && slices.ContainsFunc(cmd.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
}

// setFlag sets a flag to what TOML read: a list, or one value.
func setFlag(cmd *cli.Command, name string, value any) error {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	for _, v := range list {
		if err := cmd.Set(name, fmt.Sprint(v)); err != nil {
			return err
		}
	}
	return nil
}
