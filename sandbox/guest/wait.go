package main

import (
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// rehearsal is what the guest is called with to do nothing.
const rehearsal = "rehearsal"

// A guest that waits has no agent yet. Whatever it says is therefore its own word: a host that hears "waiting" knows
// that nothing has run in this sandbox, and may say its job again over a new connection.

// waiting says whether the job is still to come.
func (r *run) waiting() bool {
	select {
	case <-r.begun:
		return false
	default:
		return true
	}
}

// take hands the job to main and returns when the agent has started or failed to: what the host says next is
// meant for it.
func (l *link) take(payload []byte) error {
	job, err := l.base.with(payload)
	if err != nil {
		return err
	}
	select {
	case l.job <- job:
	default: // Said twice before the first was taken.
	}
	<-l.run.begun
	return nil
}

// awaitJob returns what to run. False: a host has sent the guest away, or none was there for too long.
func (l *link) awaitJob() (config, bool) {
	patience := time.Duration(l.base.WaitSeconds * float64(time.Second))
	l.heard()
	for {
		silence := time.Duration(0)
		if !l.connected.Load() {
			silence = time.Since(time.Unix(0, l.lastHeard.Load()))
		}
		if silence >= patience {
			return config{}, false
		}
		select {
		case job := <-l.job:
			return job, true
		case <-l.finished:
			return config{}, false
		case <-time.After(patience - silence):
		}
	}
}

// rehearse does what a start does, with nothing to run: gVisor keeps what it has made for an address space and what it
// has learnt of the image's folders, and the agent's start finds both. Twice, since the second process runs while
// nothing of the first is back yet. Nothing of the image is executed.
func rehearse(c config) {
	if len(c.Argv) > 0 {
		_, _ = findCommand(c) // Most runs have the command that the image names.
	}
	c.Argv = []string{"/proc/self/exe", rehearsal}
	_ = c.complete()
	path, _ := c.Env.lookup("PATH")
	for _, folder := range filepath.SplitList(path) {
		_, _ = os.Stat(folder)
	}
	for range 2 {
		started, err := startAgent(c)
		if err != nil {
			return // A start that is not rehearsed is only slower.
		}
		for err = syscall.EINTR; err == syscall.EINTR; {
			_, err = syscall.Wait4(started.pid, nil, 0, nil)
		}
		started.stdout.Close()
		started.stderr.Close()
	}
}
