package piece

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// ErrBadName says that a directory in a DAG has an entry whose name cannot be
// one of a file: it would be written outside of the output.
var ErrBadName = errors.New("not a file name")

// checkName returns ErrBadName unless name names one entry of a directory, here
// and on other systems.
func checkName(name string) error {
	// IsLocal refuses "" and "..", and the device names of Windows.
	if name == "." || strings.ContainsAny(name, "/\x00") || strings.ContainsRune(name, filepath.Separator) || !filepath.IsLocal(name) {
		return fmt.Errorf("entry %q: %w", name, ErrBadName)
	}
	return nil
}
