package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	loopback = "127.0.0.1"
	// mostConnections is how many are carried at once, each with two descriptors; fewer where nofile allows no more.
	mostConnections = 400
	// mostRefusals is how many more are told so at once (a quarter of the limit, at most); beyond it they are only closed.
	mostRefusals = 64
	// keptDescriptors are left to everything else: pipes, the host's link, artifacts.
	keptDescriptors = 40

	smallBuffer = 4 << 10
	largeBuffer = 64 << 10
	// linger is how long a client that still sends may take to read what was said last.
	linger = 2 * time.Second
	// lastRequest is how long a client may go on sending after the host has said its last.
	lastRequest = 30 * time.Second
)

// proxy carries bytes between the agent's loopback ports and the host's sockets in the run folder, one new connection
// there for each one here. It reads nothing of what it carries: what may be asked, and by which credential, is
// decided outside.
//
// INVARIANT: at most limit connections are carried, and each is closed when close returns or soon after.
type proxy struct {
	limit int
	// patience is how long a host that does not listen is tried again for.
	patience time.Duration
	ended    context.Context
	end      context.CancelFunc

	mu        sync.Mutex
	listeners []net.Listener
	open      map[net.Conn]struct{}
	carried   int
	refused   int
}

func newProxy() *proxy {
	ended, end := context.WithCancel(context.Background())
	return &proxy{limit: connectionLimit(), patience: 20 * time.Second, ended: ended, end: end, open: map[net.Conn]struct{}{}}
}

// connectionLimit is what the limit on open files leaves room for.
func connectionLimit() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur > 4*mostConnections {
		return mostConnections
	}
	return connectionsWithin(int(files.Cur))
}

// connectionsWithin counts two descriptors for each connection, and one for a refusal to every fourth.
func connectionsWithin(files int) int {
	return min(mostConnections, max(4, (files-keptDescriptors)*4/9))
}

// listen takes every port, or none: ports maps a port to the name of a socket in the folder.
func (p *proxy) listen(ports map[string]string, folder string) error {
	// Plain TCP: what multipath asks for, a sandbox need not have.
	listening := net.ListenConfig{KeepAlive: -1}
	listening.SetMultipathTCP(false)
	for port, name := range ports {
		number, err := strconv.ParseUint(port, 10, 16)
		if err == nil && (name == "" || filepath.Base(name) != name) {
			err = errors.New("its socket is not a plain name")
		}
		if err != nil {
			p.close()
			return fmt.Errorf("listen %q: %w", port, err)
		}
		listener, err := listening.Listen(context.Background(), "tcp4", net.JoinHostPort(loopback, strconv.FormatUint(number, 10)))
		if err != nil {
			p.close()
			return err
		}
		p.listeners = append(p.listeners, listener)
		go p.accept(listener, filepath.Join(folder, name))
	}
	return nil
}

// close ends the ports and all that is carried; may be repeated.
func (p *proxy) close() {
	p.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, listener := range p.listeners {
		listener.Close()
	}
	for connection := range p.open {
		connection.Close()
	}
}

func (p *proxy) accept(listener net.Listener, socket string) {
	for {
		client, err := listener.Accept()
		switch {
		case err == nil:
			p.take(client.(*net.TCPConn), socket)
		case p.ended.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default:
			// Out of descriptors, or the client was gone at once.
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// take decides what becomes of a client.
func (p *proxy) take(client *net.TCPConn, socket string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended.Err() != nil:
		client.Close()
	case p.carried < p.limit:
		p.carried++
		p.open[client] = struct{}{}
		go func() {
			p.carry(client, socket)
			p.forget(client, &p.carried)
		}()
	case p.refused < min(mostRefusals, max(1, p.limit/4)):
		p.refused++
		p.open[client] = struct{}{}
		go func() {
			refuse(client, "Too many connections at once", fmt.Sprintf("The sandbox carries %d connections at once.", p.limit))
			p.forget(client, &p.refused)
		}()
	default:
		client.Close()
	}
}

func (p *proxy) forget(client net.Conn, counter *int) {
	client.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, client)
	*counter--
}

// carry copies both ways until both are done. The end of one direction is passed on and does not end the other.
func (p *proxy) carry(client *net.TCPConn, socket string) {
	host, err := p.dial(socket)
	if err != nil {
		if p.ended.Err() == nil {
			refuse(client, "The host runtime is away", "It did not listen; it may be starting again.")
		}
		return
	}
	if !p.enter(host) {
		return
	}
	defer p.leave(host)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		switch readFailed, writeFailed := copyBytes(host, client); {
		case writeFailed != nil:
			// What the host said last has still to be read: a client that is closed with bytes of its own unread loses it.
			discard(client)
		case readFailed != nil:
			host.Close()
		default:
			_ = host.CloseWrite()
		}
	}()
	if _, writeFailed := copyBytes(client, host); writeFailed != nil {
		host.Close()
	}
	_ = client.CloseWrite()
	_ = client.SetReadDeadline(time.Now().Add(lastRequest))
	<-sent
}

func (p *proxy) enter(host net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended.Err() != nil {
		host.Close()
		return false
	}
	p.open[host] = struct{}{}
	return true
}

func (p *proxy) leave(host net.Conn) {
	host.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, host)
}

// dial connects to the host, and tries again while it is away: a runtime that restarts is found as soon as it listens.
func (p *proxy) dial(socket string) (*net.UnixConn, error) {
	waiting, stop := context.WithTimeout(p.ended, p.patience)
	defer stop()
	var dialer net.Dialer
	for pause := 2 * time.Millisecond; ; pause = min(pause*2, 250*time.Millisecond) {
		host, err := dialer.DialContext(waiting, "unix", socket)
		if err == nil {
			return host.(*net.UnixConn), nil
		}
		select {
		case <-time.After(pause):
		case <-waiting.Done():
			return nil, err
		}
	}
}

// copyBytes copies until from has ended (no error) or either side failed. It holds one buffer, a small one until the
// bytes come in large pieces, and reads no more before the last was written: a slow reader slows the writer.
func copyBytes(to, from net.Conn) (readFailed, writeFailed error) {
	buffer := make([]byte, smallBuffer)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, failed := to.Write(buffer[:n]); failed != nil {
				return nil, failed
			}
		}
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
		if n == len(buffer) && n < largeBuffer {
			buffer = make([]byte, 4*n)
		}
	}
}

// refuse answers in HTTP, whatever was asked, and lets the client read it.
func refuse(client *net.TCPConn, title, detail string) {
	body := fmt.Sprintf(`{"type":"https://awgp.example.com/problems/bridge-away","title":%q,"status":503,"detail":%q}`, title, detail)
	_ = client.SetDeadline(time.Now().Add(linger))
	_, err := fmt.Fprintf(client, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"+
		"Content-Length: %d\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s", len(body), body)
	if err == nil {
		_ = client.CloseWrite()
		discard(client)
	}
}

// discard reads a client to its end, for a moment.
func discard(client *net.TCPConn) {
	_ = client.SetReadDeadline(time.Now().Add(linger))
	buffer := make([]byte, smallBuffer)
	for {
		if _, err := client.Read(buffer); err != nil {
			return
		}
	}
}
