package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const testTimeout = 30 * time.Second

// TestMain lets this test binary be the guest, and the agent inside it, as processes of their own.
func TestMain(m *testing.M) {
	switch os.Getenv("AWGP_TEST_ROLE") {
	case "guest":
		os.Exit(guest(os.Args[1]))
	case "noise":
		writeNoise()
		os.Exit(0)
	case "asking":
		ask()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// host is the other end of the socket: the runtime's side of the protocol, in a test's hands.
type host struct {
	t        *testing.T
	folder   string
	out      string
	listener net.Listener
	guest    *exec.Cmd
}

// newHost writes guest.json for argv; nobody listens until listen is called.
func newHost(t *testing.T, settings map[string]any, argv ...string) *host {
	t.Helper()
	folder, err := os.MkdirTemp("", "guest") // t.TempDir's names are too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	h := &host{t: t, folder: folder, out: filepath.Join(folder, "work", "out")}
	if err := os.MkdirAll(h.out, 0o755); err != nil {
		t.Fatal(err)
	}
	document := map[string]any{
		"argv":    argv,
		"env":     map[string]string{"PATH": os.Getenv("PATH"), "OUT": h.out},
		"workdir": filepath.Dir(h.out), "uid": 0, "in": "/awgp/in", "out": h.out,
	}
	for key, value := range settings {
		document[key] = value
	}
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "guest.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) startGuest() {
	h.t.Helper()
	h.guest = exec.Command(os.Args[0], h.folder)
	h.guest.Env = append(os.Environ(), "AWGP_TEST_ROLE=guest")
	h.guest.Stderr = os.Stderr
	if err := h.guest.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = h.guest.Process.Kill() })
}

func (h *host) listen() {
	h.t.Helper()
	listener, err := net.Listen("unix", filepath.Join(h.folder, "guest.sock"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.listener = listener
	h.t.Cleanup(func() { listener.Close() })
}

// exitCode waits for the guest process itself.
func (h *host) exitCode() int {
	h.t.Helper()
	done := make(chan struct{})
	go func() { _ = h.guest.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(testTimeout):
		h.t.Fatal("the guest did not exit")
	}
	return h.guest.ProcessState.ExitCode()
}

// session is one connection of the guest.
type session struct {
	h      *host
	conn   net.Conn
	reader *bufio.Reader
	writer *bufio.Writer
	// greeting is the guest's hello.
	greeting hello
}

// accept takes the guest's next connection, reads its hello and welcomes it.
func (h *host) accept(offset int64, done ...string) *session {
	h.t.Helper()
	_ = h.listener.(*net.UnixListener).SetDeadline(time.Now().Add(testTimeout))
	conn, err := h.listener.Accept()
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	s := &session{h: h, conn: conn, reader: bufio.NewReader(conn), writer: bufio.NewWriter(conn)}
	if kind, payload := s.read(); kind != frameHello || json.Unmarshal(payload, &s.greeting) != nil || s.greeting.PID == 0 {
		h.t.Fatalf("no hello but %c %s", kind, payload)
	}
	s.say(frameWelcome, welcome{offset, done})
	return s
}

func (s *session) say(kind byte, message any) {
	s.h.t.Helper()
	if err := writeMessage(s.writer, kind, message); err != nil {
		s.h.t.Fatal(err)
	}
	if err := s.writer.Flush(); err != nil {
		s.h.t.Fatal(err)
	}
}

func (s *session) finish() { s.h.t.Helper(); s.say(frameFinish, struct{}{}) }

func (s *session) read() (byte, []byte) {
	s.h.t.Helper()
	kind, payload, err := readFrame(s.reader)
	if err != nil {
		s.h.t.Fatalf("reading from the guest: %v", err)
	}
	return kind, payload
}

// transcript is what a host has received so far: the byte streams, by offset, and what followed.
type transcript struct {
	total   int64
	streams map[byte]*bytes.Buffer
	exited  *exitReport
	files   map[string][]byte
	digests map[string]string
	sent    *artifactsSent
	open    string
}

func newTranscript() *transcript {
	return &transcript{
		streams: map[byte]*bytes.Buffer{streamStdout: {}, streamStderr: {}},
		files:   map[string][]byte{}, digests: map[string]string{},
	}
}

// take reads one frame into the transcript. Output must begin exactly where the last piece ended.
func (x *transcript) take(s *session) byte {
	s.h.t.Helper()
	kind, payload := s.read()
	var err error
	switch kind {
	case frameOutput:
		offset := int64(binary.BigEndian.Uint64(payload))
		if offset != x.total {
			s.h.t.Fatalf("output at %d, expected at %d", offset, x.total)
		}
		at := time.UnixMicro(int64(binary.BigEndian.Uint64(payload[9:])))
		if time.Since(at) > time.Minute || time.Until(at) > time.Minute {
			s.h.t.Fatalf("output of %v", at)
		}
		x.streams[payload[8]].Write(payload[outputHeaderSize:])
		x.total += int64(len(payload) - outputHeaderSize)
	case frameExited:
		x.exited = &exitReport{}
		err = json.Unmarshal(payload, x.exited)
	case frameArtifact:
		var begin artifactBegin
		err = json.Unmarshal(payload, &begin)
		x.open, x.files[begin.Path] = begin.Path, []byte{}
	case frameArtifactData:
		x.files[x.open] = append(x.files[x.open], payload...)
	case frameArtifactEnd:
		var end artifactEnd
		err = json.Unmarshal(payload, &end)
		x.digests[end.Path] = end.SHA256
	case frameArtifactsSent:
		x.sent = &artifactsSent{}
		err = json.Unmarshal(payload, x.sent)
	}
	if err != nil {
		s.h.t.Fatal(err)
	}
	return kind
}

// takeAll reads to the end of what the guest has to say, acknowledging output as it comes.
func (x *transcript) takeAll(s *session) {
	s.h.t.Helper()
	for x.sent == nil {
		if x.take(s) == frameOutput {
			s.say(frameAck, ack{x.total})
		}
	}
}

// UnmarshalJSON is the host's reading of a timestamp.
func (t *timestamp) UnmarshalJSON(text []byte) error {
	parsed, err := time.Parse(`"2006-01-02T15:04:05.000000Z"`, string(text))
	*t = timestamp(parsed)
	return err
}
