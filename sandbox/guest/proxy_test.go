package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// outside is a host's socket and a proxy before it.
type outside struct {
	t      *testing.T
	proxy  *proxy
	socket string
	port   string
}

// newOutside opens the proxy; nobody listens on the socket until serve or listen is called.
func newOutside(t *testing.T) *outside {
	t.Helper()
	folder, err := os.MkdirTemp("", "proxy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	o := &outside{t: t, proxy: newProxy(), socket: filepath.Join(folder, "llm.sock"), port: freePort(t)}
	t.Cleanup(o.proxy.close)
	if err := o.proxy.listen(map[string]string{o.port: "llm.sock"}, folder); err != nil {
		t.Fatal(err)
	}
	return o
}

func freePort(t *testing.T) string {
	t.Helper()
	probe, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	_, port, _ := net.SplitHostPort(probe.Addr().String())
	return port
}

func (o *outside) listen() *net.UnixListener {
	o.t.Helper()
	listener, err := net.Listen("unix", o.socket)
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { listener.Close() })
	return listener.(*net.UnixListener)
}

// serve answers each connection by a function of its own, which need not close it.
func (o *outside) serve(answer func(*net.UnixConn)) *net.UnixListener {
	listener := o.listen()
	go func() {
		for {
			connection, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				answer(connection)
			}()
		}
	}()
	return listener
}

func (o *outside) dial() *net.TCPConn {
	o.t.Helper()
	connection, err := net.Dial("tcp4", "127.0.0.1:"+o.port)
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { connection.Close() })
	_ = connection.SetDeadline(time.Now().Add(testTimeout))
	return connection.(*net.TCPConn)
}

func (o *outside) carried() int {
	o.proxy.mu.Lock()
	defer o.proxy.mu.Unlock()
	return o.proxy.carried
}

func readAll(t *testing.T, from io.Reader) []byte {
	t.Helper()
	data, err := io.ReadAll(from)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestTheEndOfOneDirectionLeavesTheOtherOpen(t *testing.T) {
	o := newOutside(t)
	o.serve(func(host *net.UnixConn) {
		asked, _ := io.ReadAll(host)
		fmt.Fprintf(host, "heard %s", asked)
	})
	client := o.dial()
	fmt.Fprint(client, "a question")
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer := readAll(t, client); string(answer) != "heard a question" {
		t.Errorf("answer %q", answer)
	}
	waitFor(t, "nothing is carried any more", func() bool { return o.carried() == 0 })
}

func TestWhatTheHostEndsFirstLeavesTheClientSending(t *testing.T) {
	o := newOutside(t)
	heard := make(chan []byte, 1)
	o.serve(func(host *net.UnixConn) {
		fmt.Fprint(host, "early")
		_ = host.CloseWrite()
		rest, _ := io.ReadAll(host)
		heard <- rest
	})
	client := o.dial()
	if answer := readAll(t, client); string(answer) != "early" {
		t.Errorf("answer %q", answer)
	}
	fmt.Fprint(client, "late")
	client.Close()
	if rest := <-heard; string(rest) != "late" {
		t.Errorf("heard %q", rest)
	}
}

func TestEightMegabytesBothWaysAtOnceAreByteExact(t *testing.T) {
	const size = 8 << 20
	o := newOutside(t)
	heard := make(chan []byte, 1)
	o.serve(func(host *net.UnixConn) {
		go func() {
			_, _ = host.Write(noise(2, size))
			_ = host.CloseWrite()
		}()
		asked, _ := io.ReadAll(host)
		heard <- asked
	})
	client := o.dial()
	go func() {
		_, _ = client.Write(noise(1, size))
		_ = client.CloseWrite()
	}()
	if answer := readAll(t, client); !bytes.Equal(answer, noise(2, size)) {
		t.Errorf("an answer of %d bytes that differs", len(answer))
	}
	if asked := <-heard; !bytes.Equal(asked, noise(1, size)) {
		t.Errorf("a request of %d bytes that differs", len(asked))
	}
}

func TestASlowReaderSlowsTheWriter(t *testing.T) {
	const size = 64 << 20
	o := newOutside(t)
	var written atomic.Int64
	o.serve(func(host *net.UnixConn) {
		piece := make([]byte, 64<<10)
		for written.Load() < size {
			n, err := host.Write(piece)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	client := o.dial()
	_ = client.SetReadBuffer(64 << 10)
	before := int64(-1)
	waitFor(t, "the writer stands still", func() bool {
		now := written.Load()
		stands := now > 0 && now == before
		before = now
		time.Sleep(50 * time.Millisecond)
		return stands
	})
	if held := written.Load(); held > size/2 {
		t.Errorf("%d bytes are held on the way of one that reads nothing", held)
	}
	if got, err := io.Copy(io.Discard, client); err != nil || got != size {
		t.Errorf("%d of %d bytes, %v", got, size, err)
	}
}

func TestAHostThatStartsAgainIsFoundByTheNextRequest(t *testing.T) {
	o := newOutside(t)
	answering := func(name string) *net.UnixListener {
		return o.serve(func(host *net.UnixConn) { fmt.Fprint(host, name) })
	}
	first := answering("first")
	if answer := echo(o.dial(), ""); answer != "first" {
		t.Fatalf("answer %q", answer)
	}
	first.Close()
	waitFor(t, "the first is over", func() bool { return o.carried() == 0 })
	waiting := o.dial()
	waitFor(t, "the request waits", func() bool { return o.carried() == 1 })
	answering("second")
	if answer := readAll(t, waiting); string(answer) != "second" {
		t.Errorf("answer %q", answer)
	}
}

func TestTheDeathOfTheHostEndsWhatItAnswered(t *testing.T) {
	o := newOutside(t)
	o.serve(func(host *net.UnixConn) {
		fmt.Fprint(host, "half")
		_, _ = host.Read(make([]byte, 1))
	})
	client := o.dial()
	fmt.Fprint(client, "x")
	if answer := readAll(t, client); string(answer) != "half" {
		t.Errorf("answer %q", answer)
	}
	client.Close()
	waitFor(t, "nothing is carried any more", func() bool { return o.carried() == 0 })
}

func TestAClientThatIsGoneEndsItsRequestOutside(t *testing.T) {
	o := newOutside(t)
	gone := make(chan error, 1)
	o.serve(func(host *net.UnixConn) {
		_, _ = host.Read(make([]byte, 7))
		_, err := host.Read(make([]byte, 1))
		gone <- err
	})
	client := o.dial()
	fmt.Fprint(client, "request")
	_ = client.SetLinger(0)
	client.Close()
	select {
	case <-gone:
	case <-time.After(testTimeout):
		t.Fatal("the host waits for a client that is gone")
	}
}

func TestAHostThatIsAwayIsSaidAfterAWhile(t *testing.T) {
	o := newOutside(t)
	o.proxy.patience = 50 * time.Millisecond
	client := &http.Client{Timeout: testTimeout}
	answer, err := client.Post("http://127.0.0.1:"+o.port+"/llm/v1/chat/completions", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	checkRefusal(t, answer, "away")
}

func checkRefusal(t *testing.T, answer *http.Response, says string) {
	t.Helper()
	var problem struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
	}
	if err := json.Unmarshal(readAll(t, answer.Body), &problem); err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != 503 || problem.Status != 503 || !strings.Contains(problem.Title, says) || !answer.Close {
		t.Errorf("%d %+v, close %v", answer.StatusCode, problem, answer.Close)
	}
	if kind := answer.Header.Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("content type %q", kind)
	}
}

func TestClosingEndsEverythingThatIsCarried(t *testing.T) {
	o := newOutside(t)
	waiting := o.dial() // nobody listens outside
	waitFor(t, "it is carried", func() bool { return o.carried() == 1 })
	o.serve(func(host *net.UnixConn) { _, _ = host.Read(make([]byte, 1)) })
	carried := o.dial()
	waitFor(t, "both are", func() bool { return o.carried() == 2 })
	o.proxy.close()
	for _, connection := range []*net.TCPConn{waiting, carried} {
		if _, err := connection.Read(make([]byte, 1)); err == nil {
			t.Error("it was answered")
		}
	}
	waitFor(t, "nothing is carried any more", func() bool { return o.carried() == 0 })
	if _, err := net.Dial("tcp4", "127.0.0.1:"+o.port); err == nil {
		t.Error("the port is still open")
	}
}

func TestAPortThatIsTakenFailsTheRunClearly(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	h := newHost(t, map[string]any{"listen": map[string]string{port: "llm.sock"}}, "sh", "-c", "echo never")
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	x.takeAll(s)
	s.finish()
	if code := h.exitCode(); code != exitNotExecutable || !strings.Contains(x.exited.Detail, "127.0.0.1:"+port) {
		t.Errorf("exit %d, report %+v", code, x.exited)
	}
	if x.total != 0 {
		t.Error("the agent was started")
	}
}

func TestAPortLeadsNowhereButToASocketOfTheRun(t *testing.T) {
	for port, name := range map[string]string{"0x10": "llm.sock", "70000": "llm.sock", "4010": "../guest.sock", "4011": ""} {
		p := newProxy()
		if err := p.listen(map[string]string{port: name}, t.TempDir()); err == nil {
			t.Errorf("%s → %q was taken", port, name)
		}
		p.close()
	}
}

func TestTheAgentFindsItsPortsAtItsFirstInstruction(t *testing.T) {
	port := freePort(t)
	h := newHost(t, map[string]any{
		"listen": map[string]string{port: "llm.sock"},
		"env":    []string{"AWGP_TEST_ROLE=asking", "PORT=" + port},
	}, os.Args[0])
	h.listen()
	outside, err := net.Listen("unix", filepath.Join(h.folder, "llm.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "at ", r.URL.Path) })}
	go func() { _ = server.Serve(outside) }()
	t.Cleanup(func() { _ = server.Shutdown(context.Background()) })
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	x.takeAll(s)
	s.finish()
	if code := h.exitCode(); code != 0 || x.streams[1].String() != "at /llm/v1/models" {
		t.Errorf("exit %d, out %q err %q", code, x.streams[1], x.streams[2])
	}
}

// ask is the agent's part of it.
func ask() {
	answer, err := http.Get("http://127.0.0.1:" + os.Getenv("PORT") + "/llm/v1/models")
	if err != nil {
		fmt.Fprint(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = io.Copy(os.Stdout, answer.Body)
}
