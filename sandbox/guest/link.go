package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 500 * time.Millisecond
)

var errLinkLost = errors.New("the host closed the connection")

// link carries a run to the host over one connection at a time, and starts again where the host asks.
type link struct {
	socket string
	run    *run
	// finished closes when the host has said F: it has everything.
	finished chan struct{}
	once     sync.Once
	// lastHeard is when the host last said anything, in Unix nanoseconds.
	lastHeard atomic.Int64
	// connected is true between a host's welcome and the connection's end.
	connected atomic.Bool
	// base is guest.json; job carries what a waiting guest makes of it when it is told what to run.
	base config
	job  chan config

	mu     sync.Mutex
	stored map[string]bool
}

func newLink(socket string, r *run) *link {
	return &link{socket: socket, run: r, base: r.config, finished: make(chan struct{}), job: make(chan config, 1), stored: map[string]bool{}}
}

// serve connects for ever: a host that restarts finds the guest at its next try.
func (l *link) serve() {
	wait := firstRetry
	for {
		connection, err := net.Dial("unix", l.socket)
		if err == nil {
			if l.session(connection) {
				wait = firstRetry
			}
			connection.Close()
		}
		select {
		case <-l.finished:
			return
		case <-time.After(wait):
		}
		wait = min(wait*2, lastRetry)
	}
}

// session is one connection; welcomed says whether there was a host behind it.
func (l *link) session(connection net.Conn) (welcomed bool) {
	reader := bufio.NewReader(connection)
	writer := bufio.NewWriterSize(connection, 256<<10)
	if writeMessage(writer, frameHello, hello{os.Getpid(), version, l.run.waiting()}) != nil || writer.Flush() != nil {
		return false
	}
	kind, payload, err := readFrame(reader)
	if err != nil || kind != frameWelcome {
		return false
	}
	var start welcome
	if json.Unmarshal(payload, &start) != nil {
		return false
	}
	l.heard()
	l.connected.Store(true)
	defer l.leave()
	for _, path := range start.ArtifactsDone {
		l.markStored(path)
	}
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		// Closing also frees a writer that is blocked in a send.
		defer connection.Close()
		l.listen(reader)
	}()
	if l.send(writer, l.run.output.resume(start.OutputOffset), lost) == nil {
		<-lost
	}
	connection.Close()
	<-lost
	return true
}

func (l *link) heard() { l.lastHeard.Store(time.Now().UnixNano()) }

func (l *link) leave() {
	l.heard()
	l.connected.Store(false)
}

func (l *link) markStored(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored[path] = true
}

func (l *link) isStored(path string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stored[path]
}

// listen reads the host's frames until the connection or the run ends.
func (l *link) listen(reader *bufio.Reader) {
	for {
		kind, payload, err := readFrame(reader)
		if err != nil {
			return
		}
		l.heard()
		if err := l.obey(kind, payload); err != nil {
			return
		}
		if kind == frameFinish {
			l.once.Do(func() { close(l.finished) })
			return
		}
	}
}

func (l *link) obey(kind byte, payload []byte) error {
	if l.run.waiting() {
		if kind == frameJob {
			return l.take(payload)
		}
		return nil
	}
	switch kind {
	case frameAck:
		var message ack
		if err := json.Unmarshal(payload, &message); err != nil {
			return err
		}
		l.run.output.acknowledge(message.Offset)
	case frameSignal:
		var message signalRequest
		if err := json.Unmarshal(payload, &message); err != nil {
			return err
		}
		switch message.Signal {
		case "TERM":
			l.run.signal(syscall.SIGTERM)
		case "KILL":
			l.run.signal(syscall.SIGKILL)
		}
	case frameLease:
		var message leaseLeft
		if err := json.Unmarshal(payload, &message); err != nil {
			return err
		}
		l.run.lease.renew(message.Seconds, message.Resumed)
	case frameStored:
		var message stored
		if err := json.Unmarshal(payload, &message); err != nil {
			return err
		}
		l.markStored(message.Path)
	}
	// A frame of a later version is passed over.
	return nil
}

// send streams the output from cursor, then what there is to say after the agent's end.
func (l *link) send(writer *bufio.Writer, cursor int64, lost <-chan struct{}) error {
	select {
	case <-l.run.begun:
	case <-lost:
		return errLinkLost
	}
	for {
		piece, found, ended, changed := l.run.output.next(cursor)
		if found {
			if err := writeOutput(writer, piece); err != nil {
				return err
			}
			cursor = piece.end()
			continue
		}
		if ended {
			break
		}
		if err := writer.Flush(); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-lost:
			return errLinkLost
		}
	}
	if err := writer.Flush(); err != nil {
		return err
	}
	select {
	case <-l.run.ended:
	case <-lost:
		return errLinkLost
	}
	return l.sendEnd(writer)
}

// sendEnd says how the agent ended and sends its artifacts; the host answers C for each it has stored.
func (l *link) sendEnd(writer *bufio.Writer) error {
	if err := writeMessage(writer, frameExited, l.run.report); err != nil {
		return err
	}
	unread := l.run.skipped
	sent := 0
	for _, item := range l.run.artifacts {
		if l.isStored(item.path) {
			sent++
			continue
		}
		file, err := openArtifact(l.run.config.Out, item.path)
		if err != nil {
			unread = append(unread[:len(unread):len(unread)], skipped{item.path, "cannot be read: " + err.Error()})
			continue
		}
		err = sendArtifact(writer, item, file)
		file.Close()
		if err != nil {
			return err
		}
		sent++
	}
	if unread == nil {
		unread = []skipped{}
	}
	if err := writeMessage(writer, frameArtifactsSent, artifactsSent{sent, unread}); err != nil {
		return err
	}
	return writer.Flush()
}

func sendArtifact(writer *bufio.Writer, item artifact, file *os.File) error {
	if err := writeMessage(writer, frameArtifact, artifactBegin{item.path, item.size}); err != nil {
		return err
	}
	digest := sha256.New()
	left := io.LimitReader(file, item.size)
	buffer := make([]byte, 256<<10)
	for {
		n, err := left.Read(buffer)
		if n > 0 {
			digest.Write(buffer[:n])
			if err := writeFrame(writer, frameArtifactData, buffer[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", item.path, err)
		}
	}
	return writeMessage(writer, frameArtifactEnd, artifactEnd{item.path, hex.EncodeToString(digest.Sum(nil))})
}
