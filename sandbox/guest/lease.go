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
// INVARIANT: a lease that is over stays over; over is closed once.
type lease struct {
	mu       sync.Mutex
	deadline time.Time
	timer    *time.Timer
	ended    bool
	over     chan struct{}
}

// newLease starts to count. written is when seconds was true, by the wall clock, zero where that is not
// known: what the engine took to start the guest counts. A wall clock that went back lengthens nothing.
func newLease(seconds float64, written time.Time) *lease {
	left := leaseDuration(seconds)
	if late := time.Now().Round(0).Sub(written); !written.IsZero() && late > 0 {
		left -= late
	}
	l := &lease{deadline: time.Now().Add(left), over: make(chan struct{})}
	l.timer = time.AfterFunc(left, l.check)
	return l
}

// renew replaces the deadline: the runtime's latest word counts, from now on.
func (l *lease) renew(seconds float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// After a pause the renewal may be read before the timer fires: it came too late all the same.
	if l.endIfDue() {
		return
	}
	left := leaseDuration(seconds)
	l.deadline = time.Now().Add(left)
	l.timer.Reset(left)
}

// check is what the timer calls; a renewal may have come first.
func (l *lease) check() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endIfDue()
}

// isOver says whether the deadline has passed, also before the timer was served.
func (l *lease) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.endIfDue()
}

// endIfDue is called with mu held.
func (l *lease) endIfDue() bool {
	if !l.ended && time.Until(l.deadline) <= 0 {
		l.ended = true
		close(l.over)
	}
	return l.ended
}

func leaseDuration(seconds float64) time.Duration {
	bounded := math.Min(math.Max(seconds, 0), maxLease.Seconds())
	return time.Duration(bounded * float64(time.Second))
}
