package main

import (
	"sync"
	"time"
)

const (
	// maxUnacknowledged is what the guest keeps for a host that is away or slow; then the agent's pipes fill.
	maxUnacknowledged = 8 << 20
	maxRead           = 64 << 10
	// chunkOverhead is charged for each chunk, so that an agent that writes single bytes cannot
	// make the bookkeeping larger than the output.
	chunkOverhead = 64
	// coalesceWithin joins writes of one stream that follow at once: fewer frames, same bytes.
	coalesceWithin = 5 * time.Millisecond
)

const (
	streamStdout = 1
	streamStderr = 2
)

// chunk is a piece of the combined output stream, of one stream and one moment.
type chunk struct {
	offset int64
	stream byte
	at     time.Time
	data   []byte
}

func (c *chunk) end() int64 { return c.offset + int64(len(c.data)) }

// output is the unacknowledged end of the agent's output: one byte stream with offsets.
//
// INVARIANT: base <= every chunk's offset; chunks are contiguous; the last one ends at total.
type output struct {
	mu      sync.Mutex
	chunks  []*chunk
	base    int64
	total   int64
	held    int
	closed  bool
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

// signal wakes everybody who waits for a change. Called with mu held.
func (o *output) signal() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// reserve waits until n more bytes may be held. Back-pressure: while it waits, nobody reads the agent's pipe.
func (o *output) reserve(n int) {
	for {
		o.mu.Lock()
		if o.held+n+chunkOverhead <= maxUnacknowledged {
			o.held += n + chunkOverhead
			o.mu.Unlock()
			return
		}
		changed := o.changed
		o.mu.Unlock()
		<-changed
	}
}

// commit appends what was read under a reservation of `reserved` bytes, and gives back the rest.
func (o *output) commit(reserved int, stream byte, at time.Time, data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held -= reserved + chunkOverhead
	if len(data) > 0 {
		if last := o.joinable(stream, at, len(data)); last != nil {
			last.data = append(last.data, data...)
			o.held += len(data)
		} else {
			copied := append([]byte(nil), data...)
			o.chunks = append(o.chunks, &chunk{offset: o.total, stream: stream, at: at, data: copied})
			o.held += len(data) + chunkOverhead
		}
		o.total += int64(len(data))
	}
	o.signal()
}

func (o *output) joinable(stream byte, at time.Time, n int) *chunk {
	if len(o.chunks) == 0 {
		return nil
	}
	last := o.chunks[len(o.chunks)-1]
	if last.stream != stream || len(last.data)+n > maxRead || at.Sub(last.at) > coalesceWithin {
		return nil
	}
	return last
}

// close says that both pipes have ended: total is final.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.signal()
}

// acknowledge forgets everything before offset: the host has it for good.
func (o *output) acknowledge(offset int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if offset > o.total {
		offset = o.total
	}
	if offset <= o.base {
		return
	}
	o.base = offset
	done := 0
	for done < len(o.chunks) && o.chunks[done].end() <= offset {
		o.held -= len(o.chunks[done].data) + chunkOverhead
		o.chunks[done] = nil
		done++
	}
	o.chunks = o.chunks[done:]
	if len(o.chunks) > 0 && o.chunks[0].offset < offset {
		first := o.chunks[0]
		gone := int(offset - first.offset)
		first.data, first.offset = first.data[gone:], offset
		o.held -= gone
	}
	o.signal()
}

// resume says where a new connection goes on: where the host asks, within what is still held.
func (o *output) resume(asked int64) int64 {
	o.acknowledge(asked)
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.base
}

// next gives the piece that begins at cursor. Without one it gives a channel that closes at the next
// change; ended is true when there will never be one.
func (o *output) next(cursor int64) (piece chunk, found bool, ended bool, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if cursor < o.base {
		// The host acknowledged what this connection had not sent yet: possible only for a host that
		// had it from an earlier connection.
		cursor = o.base
	}
	if cursor >= o.total {
		return chunk{}, false, o.closed, o.changed
	}
	c := o.chunks[o.find(cursor)]
	skip := cursor - c.offset
	// The slice stays valid outside the lock: appends only write behind its end.
	return chunk{offset: cursor, stream: c.stream, at: c.at, data: c.data[skip:len(c.data):len(c.data)]}, true, false, nil
}

// find is a binary search for the chunk that holds cursor; base <= cursor < total.
func (o *output) find(cursor int64) int {
	low, high := 0, len(o.chunks)-1
	for low < high {
		middle := (low + high) / 2
		if o.chunks[middle].end() <= cursor {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}
