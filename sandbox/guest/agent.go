package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// What a shell answers for a command that is not there, or cannot be run.
const (
	exitNotFound      = 127
	exitNotExecutable = 126
)

// exitReport is the payload of an X frame.
type exitReport struct {
	ExitCode    int       `json:"exit_code"`
	Signal      *int      `json:"signal"`
	StartedAt   timestamp `json:"started_at"`
	EndedAt     timestamp `json:"ended_at"`
	OutputTotal int64     `json:"output_total"`
	// Detail says in words why there was no agent to run; empty otherwise.
	Detail string `json:"detail"`
}

// timestamp is RFC 3339 in UTC with microseconds, which is what Python's datetime holds.
type timestamp time.Time

func (t timestamp) MarshalJSON() ([]byte, error) {
	return []byte(time.Time(t).UTC().Format(`"2006-01-02T15:04:05.000000Z"`)), nil
}

// agent is the process that the guest is there for.
type agent struct {
	mu      sync.Mutex
	pid     int
	running bool
	stdout  *os.File
	stderr  *os.File
}

// startError is an agent that could not be started; code is what the guest exits with.
type startError struct {
	code   int
	detail string
}

func (e *startError) Error() string { return e.detail }

// startAgent starts argv in a process group of its own, with pipes for stdout and stderr and nothing on stdin.
func startAgent(c config) (*agent, error) {
	if err := checkWorkdir(c.Workdir); err != nil {
		return nil, err
	}
	path, err := findCommand(c)
	if err != nil {
		return nil, err
	}
	stdin, err := emptyInput()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer outWrite.Close()
	errRead, errWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer errWrite.Close()

	attributes := &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 && c.UID != 0 {
		attributes.Credential = &syscall.Credential{Uid: uint32(c.UID), Gid: uint32(c.UID)}
	}
	// syscall.ForkExec, not os/exec: the reaper waits for every child, and os/exec wants to wait for its own.
	pid, err := syscall.ForkExec(path, c.Argv, &syscall.ProcAttr{
		Dir: c.Workdir,
		Env: c.Env,
		// Fd makes the write ends blocking again, which is what programs expect of their stdout.
		Files: []uintptr{stdin.Fd(), outWrite.Fd(), errWrite.Fd()},
		Sys:   attributes,
	})
	if err != nil {
		return nil, describeExecError(path, err)
	}
	return &agent{pid: pid, running: true, stdout: outRead, stderr: errRead}, nil
}

func describeExecError(path string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT):
		// The file was found a moment ago: what is missing is what its first line or its ELF header names.
		return &startError{exitNotFound, fmt.Sprintf("%s: the interpreter or loader it names is not in the image", path)}
	case errors.Is(err, syscall.ENOEXEC):
		return &startError{exitNotExecutable, fmt.Sprintf("%s: not an executable format (a script without a #! line, or another architecture)", path)}
	default:
		return &startError{exitNotExecutable, fmt.Sprintf("%s: %v", path, err)}
	}
}

func checkWorkdir(workdir string) error {
	info, err := os.Stat(workdir)
	if err != nil || !info.IsDir() {
		return &startError{exitNotFound, fmt.Sprintf("working directory %s: not a directory of the image", workdir)}
	}
	return nil
}

// emptyInput is an input at its end. An image without /dev/null gets a pipe that nobody writes.
func emptyInput() (*os.File, error) {
	if null, err := os.Open(os.DevNull); err == nil {
		return null, nil
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return read, write.Close()
}

// findCommand looks the command up as execvp does, with the agent's PATH and working directory.
func findCommand(c config) (string, error) {
	name := c.Argv[0]
	if strings.Contains(name, "/") {
		return checkExecutable(name, absolute(c.Workdir, name))
	}
	path, _ := c.Env.lookup("PATH")
	refused := error(nil)
	for _, folder := range filepath.SplitList(path) {
		found, err := checkExecutable(name, filepath.Join(absolute(c.Workdir, folder), name))
		if err == nil {
			return found, nil
		}
		if failure := new(startError); errors.As(err, &failure) && failure.code == exitNotExecutable {
			refused = err
		}
	}
	if refused != nil {
		return "", refused
	}
	return "", &startError{exitNotFound, fmt.Sprintf("%s: command not found in PATH=%s", name, path)}
}

func absolute(workdir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(workdir, path)
}

func checkExecutable(name, path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", &startError{exitNotExecutable, fmt.Sprintf("%s: permission denied", path)}
	case err != nil:
		return "", &startError{exitNotFound, fmt.Sprintf("%s: no such file in the image", name)}
	case info.IsDir():
		return "", &startError{exitNotExecutable, fmt.Sprintf("%s: is a directory", path)}
	case info.Mode().Perm()&0o111 == 0:
		return "", &startError{exitNotExecutable, fmt.Sprintf("%s: not executable", path)}
	}
	return path, nil
}

// signal sends a signal to the agent's process group, and to nobody once the agent has been reaped.
func (a *agent) signal(number syscall.Signal) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running {
		_ = syscall.Kill(-a.pid, number)
	}
}

// wait reaps every child, as PID 1 must, until the agent is among them; then it ends what the agent left behind.
func (a *agent) wait(children <-chan os.Signal) syscall.WaitStatus {
	for {
		status, ended := a.reap()
		if ended {
			return status
		}
		<-children
	}
}

// reap collects everything that has ended by now.
func (a *agent) reap() (agentStatus syscall.WaitStatus, ended bool) {
	// Held over wait4, so that signal never hits a process id that was given away again.
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return agentStatus, ended
		}
		if pid == a.pid {
			a.running = false
			agentStatus, ended = status, true
		}
	}
}

// killRest ends every process that outlived the agent: its output is then final, and nothing changes its
// artifacts while they are read.
func (a *agent) killRest() {
	_ = syscall.Kill(-a.pid, syscall.SIGKILL)
	killOthers()
}

// killOthers ends every process of the sandbox but the guest.
func killOthers() {
	if os.Getpid() == 1 {
		// Everything in this PID namespace but the guest itself. Never elsewhere: -1 would be the whole machine.
		_ = syscall.Kill(-1, syscall.SIGKILL)
	}
}

// exitCode is the guest's own exit code: the agent's, or 128+n for signal n.
func exitCode(status syscall.WaitStatus) (code int, signal *int) {
	if status.Signaled() {
		number := int(status.Signal())
		return 128 + number, &number
	}
	return status.ExitStatus(), nil
}
