package main

import (
	"math"
	"sync"
	"time"
)

// maxLease bounds what is counted: a wrong number must not become a lease for ever.
const maxLease = 24 * time.Hour

// lease is how long the run may go on without another word of its runtime. Whoever else may be given the
// run is only given it later: so when it is over, everything here has to end, host or no host.
//
// It is counted on the monotonic clock: setting the time changes nothing, and a pause of the whole sandbox
// counts, as it does outside.
//
// A sandbox that the runtime had paused may wake after its deadline, with the runtime's word on it still in the
// socket: the timer must not win that race. So the end waits lastChance for a renewal that says so (resumed).
//
// INVARIANT: a lease that is over stays over; over is closed once.
type lease struct {
	mu       sync.Mutex
	deadline time.Time
	timer    *time.Timer
	due      bool
	ended    bool
	over     chan struct{}
}

// lastChance is enough to connect again, and far below the half minute that the control plane waits after a lease's end.
const lastChance = 3 * time.Second

// newLease starts to count. written is when seconds was true, by the wall clock, zero where that is not
// known: what the engine took to start the guest counts. A wall clock that went back lengthens nothing.
func newLease(seconds float64, written time.Time) *lease {
	left := leaseDuration(seconds)
	if late := time.Now().Round(0).Sub(written); !written.IsZero() && late > 0 {
		left -= late
	}
	l := &lease{deadline: time.Now().Add(left), over: make(chan struct{})}
	if left <= 0 {
		l.end()
		return l
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(left, l.check)
	return l
}

// renew replaces the deadline: the runtime's latest word counts, from now on. resumed is the runtime's word that it
// has paused this sandbox until now: it counts also where the deadline has passed meanwhile.
func (l *lease) renew(seconds float64, resumed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := leaseDuration(seconds)
	switch {
	case l.ended:
	case left <= 0:
		l.end()
	case time.Until(l.deadline) > 0 || resumed:
		l.deadline, l.due = time.Now().Add(left), false
		l.timer.Reset(left)
	}
	// Else it was read after the deadline, as after a pause that nobody ordered: it came too late.
}

// check is what the timer calls; a renewal may have come first.
func (l *lease) check() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended || time.Until(l.deadline) > 0:
	case l.due:
		l.end()
	default:
		l.due = true
		l.timer.Reset(lastChance)
	}
}

// isOver says whether everything has to end.
func (l *lease) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// end is called with mu held, or by whoever made it.
func (l *lease) end() {
	l.ended = true
	close(l.over)
}

func leaseDuration(seconds float64) time.Duration {
	bounded := math.Min(math.Max(seconds, 0), maxLease.Seconds())
	return time.Duration(bounded * float64(time.Second))
}
