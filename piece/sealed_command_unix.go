//go:build unix

package piece

import (
	"os/exec"
	"syscall"
)

// ownGroup makes cmd the head of a process group, which is killed as a whole.
// The group cannot be another's: its head is not waited for before the kill.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
