package piece

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// CommandUnsealer unseals by running a shell command.
type CommandUnsealer struct {
	// Command is given to sh with {in} replaced by the path of the sealed file
	// and {out} by the path to write, both quoted for the shell, so they must
	// not stand in quotes themselves. It must come to an end with status 0:
	//
	//	zstd -d -q -o {out} {in}
	//	age -d -i /etc/piece.key -o {out} {in}
	Command string
}

// killGrace is how long a killed command may hold on to its output pipe.
const killGrace = 5 * time.Second

// Unseal runs the command. If ctx ends it kills the command and all that it
// started. The error holds the end of what the command said.
func (u CommandUnsealer) Unseal(ctx context.Context, sealedPath, outPath string) error {
	line, err := u.line(sealedPath, outPath)
	if err != nil {
		return err
	}
	said := &tail{max: 2 << 10}
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.WaitDelay = killGrace
	ownGroup(cmd)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("unseal command: %w%s", errors.Join(err, ctx.Err()), said)
	}
	return nil
}

// line returns the command with its paths filled in.
func (u CommandUnsealer) line(in, out string) (string, error) {
	for _, name := range []string{"{in}", "{out}"} {
		at := strings.Index(u.Command, name)
		if at < 0 {
			return "", fmt.Errorf("unseal command %q: has no %s; name where the path goes", u.Command, name)
		}
		if before := u.Command[:at]; strings.HasSuffix(before, `"`) || strings.HasSuffix(before, "'") {
			return "", fmt.Errorf("unseal command %q: %s is quoted already; remove the quotes around it", u.Command, name)
		}
	}
	return strings.NewReplacer("{in}", shellQuote(in), "{out}", shellQuote(out)).Replace(u.Command), nil
}

// shellQuote returns s as one word of a shell.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// tail keeps the last max bytes that are written to it.
type tail struct {
	max int
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.buf = append(t.buf, b[max(0, len(b)-t.max):]...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	if text := strings.TrimSpace(string(t.buf)); text != "" {
		return ": " + text
	}
	return ""
}
