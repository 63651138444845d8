package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// unixSeconds is how guest.json says when it was written.
func unixSeconds(at time.Time) float64 { return float64(at.UnixMicro()) / 1e6 }

func (h *host) mustEndWithLease(within time.Duration) {
	h.t.Helper()
	began := time.Now()
	if code := h.exitCode(); code != exitLeaseOver {
		h.t.Errorf("exit %d, not %d", code, exitLeaseOver)
	}
	if took := time.Since(began); took > within {
		h.t.Errorf("it ended after %v", took)
	}
}

func pidIn(t *testing.T, path string) int {
	t.Helper()
	pid := 0
	waitFor(t, "a process id in "+path, func() bool {
		text, _ := os.ReadFile(path)
		pid = 0
		for _, digit := range text {
			if digit < '0' || digit > '9' {
				return pid > 0
			}
			pid = pid*10 + int(digit-'0')
		}
		return false
	})
	return pid
}

func TestWithoutAnyHostTheLeaseOfTheConfigurationEndsEverything(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	h := newHost(t, map[string]any{"lease_seconds": 1.5, "written_at": unixSeconds(time.Now())},
		"sh", "-c", "trap '' TERM; echo $$ > "+file+"; while :; do sleep 0.1; done")
	h.startGuest()
	pid := pidIn(t, file)
	h.mustEndWithLease(10 * time.Second)
	waitFor(t, "the agent's end", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
}

func TestAHostThatDiesTakesTheRunWithItsLease(t *testing.T) {
	h := newHost(t, nil, "sleep", "60")
	h.listen()
	h.startGuest()
	s := h.accept(0)
	s.say(frameLease, leaseLeft{Seconds: 1})
	s.conn.Close()
	h.listener.Close()
	h.mustEndWithLease(10 * time.Second)
}

func TestRenewalsKeepARunAlive(t *testing.T) {
	h := newHost(t, map[string]any{"lease_seconds": 3}, "sh", "-c", "sleep 5; exit 4")
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	ended := make(chan struct{})
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		for {
			select {
			case <-ended:
				return
			case <-time.After(200 * time.Millisecond):
				_ = writeMessage(s.writer, frameLease, leaseLeft{Seconds: 3})
				_ = s.writer.Flush()
			}
		}
	}()
	for x.sent == nil {
		x.take(s)
	}
	close(ended)
	<-renewed
	s.finish()
	if code := h.exitCode(); code != 4 {
		t.Errorf("exit %d", code)
	}
}

func TestAHostThatIsThereIsToldWhy(t *testing.T) {
	h := newHost(t, nil, "sh", "-c", "echo here; sleep 60")
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	x.take(s)
	s.say(frameLease, leaseLeft{Seconds: 0})
	for x.exited == nil {
		x.take(s)
	}
	if x.exited.ExitCode != exitLeaseOver || x.exited.Detail != leaseOver {
		t.Errorf("report %+v", x.exited)
	}
	h.mustEndWithLease(10 * time.Second)
}

func TestAResultThatNobodyTakesIsNotHeldBeyondTheLease(t *testing.T) {
	h := newHost(t, map[string]any{"lease_seconds": 1}, "true")
	h.startGuest()
	h.mustEndWithLease(10 * time.Second)
}

func TestAGuestThatIsStartedAfterItsLeaseStartsNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ran")
	h := newHost(t, map[string]any{"lease_seconds": 5, "written_at": unixSeconds(time.Now().Add(-6 * time.Second))},
		"touch", file)
	h.startGuest()
	h.mustEndWithLease(10 * time.Second)
	if exists(file) {
		t.Error("the agent ran")
	}
}

func TestAClockThatWentBackLengthensNoLease(t *testing.T) {
	h := newHost(t, map[string]any{"lease_seconds": 1, "written_at": unixSeconds(time.Now().Add(time.Hour))}, "sleep", "60")
	h.startGuest()
	h.mustEndWithLease(10 * time.Second)
}

func TestARenewalThatIsReadTooLateRenewsNothing(t *testing.T) {
	h := newHost(t, map[string]any{"lease_seconds": 5}, "sh", "-c", "echo here; sleep 60")
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	x.take(s)
	// A pause of the whole sandbox beyond the lease that it counts since its start, and a renewal that waits in the
	// socket through it: it was not read before, since the guest stands still when it is sent.
	h.pause()
	s.say(frameLease, leaseLeft{Seconds: 3600})
	time.Sleep(6 * time.Second)
	h.goOn()
	h.mustEndWithLease(10 * time.Second)
}

func TestAPauseThatTheRuntimeOrderedDoesNotCount(t *testing.T) {
	h := newHost(t, map[string]any{"lease_seconds": 2}, "sh", "-c", "echo here; sleep 3; exit 6")
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	x.take(s)
	h.pause()
	time.Sleep(3 * time.Second)
	s.say(frameLease, leaseLeft{Seconds: 60, Resumed: true})
	h.goOn()
	x.takeAll(s)
	s.finish()
	if code := h.exitCode(); code != 6 {
		t.Errorf("exit %d", code)
	}
}

func TestAPauseWithinTheLeaseDoesNoHarm(t *testing.T) {
	h := newHost(t, map[string]any{"lease_seconds": 20}, "sh", "-c", "echo here; sleep 1; exit 6")
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	x.take(s)
	h.pause()
	time.Sleep(2 * time.Second)
	h.goOn()
	x.takeAll(s)
	s.finish()
	if code := h.exitCode(); code != 6 {
		t.Errorf("exit %d", code)
	}
}

func TestALeaseThatIsOverStaysOver(t *testing.T) {
	l := newLease(0, time.Time{})
	l.renew(60, true)
	if !l.isOver() {
		t.Error("it was renewed")
	}
	select {
	case <-l.over:
	case <-time.After(time.Second):
		t.Error("nobody was told")
	}
}

func TestAWrongNumberIsNoLeaseForEver(t *testing.T) {
	for seconds, most := range map[float64]time.Duration{1e300: maxLease, -1: 0, 2.5: 2500 * time.Millisecond} {
		if got := leaseDuration(seconds); got != most {
			t.Errorf("%v s give %v", seconds, got)
		}
	}
}

// pause stops the guest and returns when it stands still.
func (h *host) pause() {
	h.t.Helper()
	if err := h.guest.Process.Signal(syscall.SIGSTOP); err != nil {
		h.t.Fatal(err)
	}
	for end := time.Now().Add(testTimeout); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.guest.Process.Pid))
		if err != nil {
			h.t.Fatal(err)
		}
		// The state follows the name, which stands in parentheses.
		if _, rest, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(rest, "T") {
			return
		}
	}
	h.t.Fatal("the guest did not stop")
}

// goOn ends a pause.
func (h *host) goOn() {
	_ = h.guest.Process.Signal(syscall.SIGCONT)
}
