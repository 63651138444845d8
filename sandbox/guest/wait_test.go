package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// waiting is a host whose guest.json names no agent yet.
func waiting(t *testing.T, settings map[string]any) *host {
	t.Helper()
	all := map[string]any{"wait": true, "argv": []string{}}
	for key, value := range settings {
		all[key] = value
	}
	h := newHost(t, all)
	h.listen()
	h.startGuest()
	return h
}

func (s *session) mustWait(is bool) {
	s.h.t.Helper()
	if s.greeting.Waiting != is {
		s.h.t.Fatalf("hello says waiting=%v", s.greeting.Waiting)
	}
}

func TestAGuestThatWaitsStartsItsJobOnce(t *testing.T) {
	// A lease that is over would end it, if it were counted before the job.
	h := waiting(t, map[string]any{"lease_seconds": 0, "env": map[string]string{"WHO": "file", "PATH": "/bin:/usr/bin"}})
	s := h.accept(0)
	s.mustWait(true)
	s.say(frameLease, leaseLeft{})
	s.say(frameSignal, signalRequest{"KILL"}) // There is nobody to kill yet.
	job := map[string]any{
		"argv": []string{"sh", "-c", "echo $WHO; sleep 1; exit 5"}, "env": map[string]string{"WHO": "job"}, "lease_seconds": 60,
	}
	s.say(frameJob, job)
	s.say(frameJob, job)
	x := newTranscript()
	x.take(s)
	s.conn.Close()
	s = h.accept(x.total)
	s.mustWait(false)
	s.say(frameJob, job)
	x.takeAll(s)
	s.finish()
	if code := h.exitCode(); code != 5 {
		t.Errorf("exit %d", code)
	}
	if got := x.streams[streamStdout].String(); got != "job\n" {
		t.Errorf("output %q", got)
	}
}

func TestAJobThatWasLostWithItsConnectionIsSaidAgain(t *testing.T) {
	h := waiting(t, nil)
	h.accept(0).conn.Close()
	s, x := h.accept(0), newTranscript()
	s.mustWait(true)
	s.say(frameJob, map[string]any{"argv": []string{"true"}})
	x.takeAll(s)
	s.finish()
	if code := h.exitCode(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestASignalRightAfterTheJobReachesTheAgent(t *testing.T) {
	h := waiting(t, nil)
	s, x := h.accept(0), newTranscript()
	s.say(frameJob, map[string]any{"argv": []string{"sleep", "60"}})
	s.say(frameSignal, signalRequest{"TERM"})
	x.takeAll(s)
	s.finish()
	if code := h.exitCode(); code != 128+15 {
		t.Errorf("exit %d", code)
	}
}

func TestAGuestThatWaitsIsSentAway(t *testing.T) {
	h := waiting(t, nil)
	s := h.accept(0)
	s.finish()
	h.mustEndWithLease(10 * time.Second)
}

func TestAGuestThatWaitsForNobodyEnds(t *testing.T) {
	h := waiting(t, map[string]any{"wait_seconds": 1})
	s := h.accept(0)
	// Connected it waits for longer than that.
	time.Sleep(1500 * time.Millisecond)
	s.conn.Close()
	h.listener.Close()
	h.mustEndWithLease(10 * time.Second)
}

func TestAJobAfterItsLeaseStartsNothing(t *testing.T) {
	h := waiting(t, nil)
	s := h.accept(0)
	file := filepath.Join(t.TempDir(), "ran")
	s.say(frameJob, map[string]any{"argv": []string{"touch", file}, "lease_seconds": 0})
	h.mustEndWithLease(10 * time.Second)
	if exists(file) {
		t.Error("the agent ran")
	}
}

func TestAGuestThatHasRehearsedStartsItsJobAsAnyOther(t *testing.T) {
	env := map[string]string{"AWGP_TEST_ROLE": "guest", "PATH": os.Getenv("PATH")}
	h := waiting(t, map[string]any{"rehearse": true, "argv": []string{"sh"}, "env": env})
	s, x := h.accept(0), newTranscript()
	s.mustWait(true)
	s.say(frameJob, map[string]any{"argv": []string{"sh", "-c", "echo out; exit 3"}})
	x.takeAll(s)
	s.finish()
	if code := h.exitCode(); code != 3 {
		t.Errorf("exit %d", code)
	}
	if got := x.streams[streamStdout].String(); got != "out\n" {
		t.Errorf("output %q", got)
	}
}
