// The guest is PID 1 of an AWGP sandbox, in any image: it starts the agent, reaps, forwards signals, and
// carries output, exit and artifacts to the host runtime over the bind-mounted Unix socket, without loss.
//
// It needs nothing of the image: no shell, no libc, no /etc, no mount point but /awgp. What it says is the
// agent's word to the host, no more: exit status, memory and time are taken from Docker.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	version       = "2"
	defaultFolder = "/awgp/run"
	// exitGuestFailed is Docker's own code for "the container could not be run".
	exitGuestFailed = 125
	// exitLeaseOver is the guest's at the lease's end, whatever became of the agent. The runtime believes it
	// only when the lease is over by its own count as well.
	exitLeaseOver = 143
	leaseOver     = "lease over"
	// lastWords is how long a host that is there may still take what there is to say after the lease.
	lastWords = 500 * time.Millisecond
)

// run is what the link tells the host about.
//
// INVARIANT: config, agent and lease are written before begun closes, and only read after it by the link; code is written once, before gone closes; report, artifacts and skipped before ended closes.
type run struct {
	config config
	output *output
	agent  *agent
	lease  *lease
	proxy  *proxy
	// begun closes when config, agent and lease are final: at once, but for a guest that waits for its job.
	begun chan struct{}
	// gone closes when the agent has ended, ended when its output and artifacts are final too.
	gone  chan struct{}
	ended chan struct{}

	code int

	report    exitReport
	artifacts []artifact
	skipped   []skipped
}

func (r *run) signal(number syscall.Signal) { r.agent.signal(number) }

func main() {
	folder := defaultFolder
	if len(os.Args) > 1 {
		folder = os.Args[1]
	}
	os.Exit(guest(folder))
}

func guest(folder string) int {
	if folder == rehearsal {
		return 0
	}
	// The agent's limit on processes counts the guest's threads as well: two are enough for pipes and socket.
	runtime.GOMAXPROCS(2)
	protect()
	c, err := readConfig(folder)
	if err != nil {
		fmt.Fprintln(os.Stderr, "awgp guest:", err)
		return exitGuestFailed
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	// Caught, not ignored: an ignored signal would stay ignored in the agent.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE, syscall.SIGHUP)

	r := &run{
		config: c, output: newOutput(), proxy: newProxy(),
		begun: make(chan struct{}), gone: make(chan struct{}), ended: make(chan struct{}),
	}
	l := newLink(c.socket, r)
	if c.Wait {
		if c.Rehearse {
			rehearse(c)
		}
		go l.serve()
		told := false
		if r.config, told = l.awaitJob(); !told {
			fmt.Fprintln(os.Stderr, "awgp guest: no job came")
			return exitLeaseOver
		}
	}
	r.lease = r.config.startLease()
	if r.lease.isOver() {
		// The engine took so long that somebody else may have the run by now.
		fmt.Fprintln(os.Stderr, "awgp guest:", leaseOver)
		return exitLeaseOver
	}
	// Made here because /workspace is an empty tmpfs; a failure shows when the agent writes there.
	_ = os.MkdirAll(r.config.Out, 0o755)

	started := time.Now()
	// Before the agent: its first instruction may be a request.
	if err = r.proxy.listen(r.config.Listen, r.config.folder); err == nil {
		r.agent, err = startAgent(r.config)
	}
	forwardSignals(r)
	l.heard()
	close(r.begun)
	if !c.Wait {
		go l.serve()
	}
	if err != nil {
		r.fail(started, err)
	} else {
		go r.follow(started, children)
	}
	return r.awaitFinish(l)
}

// forwardSignals passes Docker's stop on to the agent's process group.
func forwardSignals(r *run) {
	incoming := make(chan os.Signal, 4)
	signal.Notify(incoming, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	go func() {
		for received := range incoming {
			if number, ok := received.(syscall.Signal); ok {
				r.signal(number)
			}
		}
	}()
}

// fail ends a run whose agent could not be started.
func (r *run) fail(started time.Time, err error) {
	r.code = exitNotExecutable
	if failure := new(startError); errors.As(err, &failure) {
		r.code = failure.code
	}
	r.proxy.close()
	close(r.gone)
	r.output.close()
	r.report = exitReport{ExitCode: r.code, StartedAt: timestamp(started), EndedAt: timestamp(time.Now()), Detail: err.Error()}
	close(r.ended)
}

// follow reads the agent's pipes and waits for its end; then output, exit and artifacts are final.
func (r *run) follow(started time.Time, children <-chan os.Signal) {
	var pipes sync.WaitGroup
	for stream, pipe := range map[byte]*os.File{streamStdout: r.agent.stdout, streamStderr: r.agent.stderr} {
		pipes.Add(1)
		go func(stream byte, pipe *os.File) {
			defer pipes.Done()
			drain(r.output, stream, pipe)
		}(stream, pipe)
	}
	status := r.agent.wait(children)
	ended := time.Now()
	code, number := exitCode(status)
	r.code = code
	close(r.gone)
	r.agent.killRest()
	r.proxy.close()
	// What it killed, and whoever was forked meanwhile, is reaped while the pipes run empty.
	go func() {
		for range children {
			r.agent.reap()
		}
	}()
	pipes.Wait()
	r.output.close()

	r.report = exitReport{
		ExitCode: code, Signal: number, OutputTotal: r.output.total,
		StartedAt: timestamp(started), EndedAt: timestamp(ended),
	}
	if r.lease.isOver() {
		r.report.ExitCode, r.report.Detail = exitLeaseOver, leaseOver
	} else {
		r.artifacts, r.skipped = collectArtifacts(r.config.Out, r.config.MaxArtifactBytes)
	}
	close(r.ended)
}

// drain reads one pipe to its end, never more than may be held.
func drain(o *output, stream byte, pipe *os.File) {
	defer pipe.Close()
	buffer := make([]byte, maxRead)
	for {
		o.reserve(maxRead)
		n, err := pipe.Read(buffer)
		o.commit(maxRead, stream, time.Now(), buffer[:n])
		if err != nil {
			if err != io.EOF {
				fmt.Fprintln(os.Stderr, "awgp guest: reading the agent's output:", err)
			}
			return
		}
	}
}

// awaitFinish waits for the host's F after the agent's end, as long as the host is heard from at least
// once in the waiting time, and never beyond the lease.
func (r *run) awaitFinish(l *link) int {
	select {
	case <-r.gone:
	case <-r.lease.over:
		return r.endWithLease(l)
	}
	l.heard()
	patience := time.Duration(r.config.FinishWaitSeconds * float64(time.Second))
	for {
		silence := time.Since(time.Unix(0, l.lastHeard.Load()))
		if silence >= patience {
			fmt.Fprintln(os.Stderr, "awgp guest: no host took the result in time")
			return r.code
		}
		select {
		case <-l.finished:
			return r.code
		case <-r.lease.over:
			return r.endWithLease(l)
		case <-time.After(patience - silence):
		}
	}
}

// endWithLease ends everything. The exit of PID 1 kills what is left; nothing here waits for a host.
func (r *run) endWithLease(l *link) int {
	fmt.Fprintln(os.Stderr, "awgp guest:", leaseOver)
	r.signal(syscall.SIGKILL)
	killOthers()
	select {
	case <-l.finished:
	case <-time.After(lastWords):
	}
	return exitLeaseOver
}
