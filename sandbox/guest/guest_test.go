package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// noise is the agent's part of a byte-exact test: the same seed gives the same bytes on both sides.
func noise(stream byte, size int) []byte {
	data := make([]byte, size)
	rand.New(rand.NewSource(int64(stream))).Read(data)
	return data
}

// writeNoise writes NOISE bytes to each stream, in pieces of random sizes, from one goroutine.
func writeNoise() {
	size, _ := strconv.Atoi(os.Getenv("NOISE"))
	rest := map[byte][]byte{streamStdout: noise(streamStdout, size), streamStderr: noise(streamStderr, size)}
	files := map[byte]*os.File{streamStdout: os.Stdout, streamStderr: os.Stderr}
	random := rand.New(rand.NewSource(3))
	for len(rest[streamStdout])+len(rest[streamStderr]) > 0 {
		stream := byte(1 + random.Intn(2))
		n := min(1+random.Intn(100_000), len(rest[stream]))
		if n == 0 {
			continue
		}
		if _, err := files[stream].Write(rest[stream][:n]); err != nil {
			os.Exit(1)
		}
		rest[stream] = rest[stream][n:]
	}
	if path := os.Getenv("NOISE_DONE"); path != "" {
		_ = os.WriteFile(path, nil, 0o644)
	}
}

func noiseHost(t *testing.T, size int) (h *host, done string) {
	done = filepath.Join(t.TempDir(), "done")
	h = newHost(t, map[string]any{"env": []string{
		"AWGP_TEST_ROLE=noise", fmt.Sprintf("NOISE=%d", size), "NOISE_DONE=" + done,
	}}, os.Args[0])
	return h, done
}

func (x *transcript) check(t *testing.T, size int) {
	t.Helper()
	for _, stream := range []byte{streamStdout, streamStderr} {
		if !bytes.Equal(x.streams[stream].Bytes(), noise(stream, size)) {
			t.Errorf("stream %d: %d bytes that differ from the %d sent", stream, x.streams[stream].Len(), size)
		}
	}
	if x.exited == nil || x.exited.OutputTotal != int64(2*size) || x.total != int64(2*size) {
		t.Errorf("total %d of %d, exit %+v", x.total, 2*size, x.exited)
	}
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatal("never: " + what)
}

func TestNothingIsLostWhenTheAgentEndsBeforeTheHostListens(t *testing.T) {
	h := newHost(t, nil, "sh", "-c", "echo out; echo err >&2; exit 7")
	h.startGuest()
	time.Sleep(300 * time.Millisecond)
	h.listen()
	s, x := h.accept(0), newTranscript()
	x.takeAll(s)
	s.finish()
	if code := h.exitCode(); code != 7 || x.exited.ExitCode != 7 || x.exited.Signal != nil {
		t.Errorf("exit %d, report %+v", code, x.exited)
	}
	if x.streams[1].String() != "out\n" || x.streams[2].String() != "err\n" {
		t.Errorf("out %q err %q", x.streams[1], x.streams[2])
	}
}

func TestOutputIsByteExactOverManyLostConnections(t *testing.T) {
	const size = 3 << 20
	h, _ := noiseHost(t, size)
	h.listen()
	h.startGuest()
	x := newTranscript()
	random := rand.New(rand.NewSource(5))
	connections := 0
	for x.exited == nil {
		s := h.accept(x.total)
		connections++
		for frames := 1 + random.Intn(12); frames > 0 && x.exited == nil; frames-- {
			x.take(s)
			if random.Intn(3) == 0 {
				s.say(frameAck, ack{x.total})
			}
		}
		// Without a goodbye, with frames of the guest still unread.
		s.conn.Close()
	}
	s := h.accept(x.total)
	x.takeAll(s)
	s.finish()
	if code := h.exitCode(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if connections < 3 {
		t.Errorf("only %d connections: nothing was tested", connections)
	}
	x.check(t, size)
}

func TestAHostThatAsksWithinAPieceGetsItFromThere(t *testing.T) {
	h := newHost(t, nil, "sh", "-c", "printf 0123456789; sleep 0.2; exit 0")
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	x.take(s)
	s.conn.Close()
	x.total = 4
	x.streams[streamStdout].Truncate(4)
	s = h.accept(4)
	x.takeAll(s)
	s.finish()
	if h.exitCode(); x.streams[1].String() != "0123456789" {
		t.Errorf("got %q", x.streams[1])
	}
}

func TestASlowHostSlowsTheAgentOnlyAfterEightMiB(t *testing.T) {
	const size = 3 << 20 // on each stream: 6 MiB fit
	h, done := noiseHost(t, size)
	h.startGuest()
	waitFor(t, "the agent ends without a host", func() bool { return exists(done) })
	h.listen()
	x := newTranscript()
	s := h.accept(0)
	x.takeAll(s)
	s.finish()
	h.exitCode()
	x.check(t, size)
}

func TestBackPressureHoldsAnAgentThatWritesMoreThanIsAcknowledged(t *testing.T) {
	const size = 8 << 20 // on each stream: 16 MiB do not fit
	h, done := noiseHost(t, size)
	h.listen()
	h.startGuest()
	x := newTranscript()
	s := h.accept(0)
	for x.total < maxUnacknowledged-4*maxRead {
		x.take(s)
	}
	time.Sleep(300 * time.Millisecond)
	if exists(done) {
		t.Fatal("the agent wrote 16 MiB though nothing was acknowledged")
	}
	s.conn.Close()
	// What the next host is sent without acknowledging is bounded as well.
	s = h.accept(0)
	x = newTranscript()
	_ = s.conn.SetReadDeadline(time.Now().Add(time.Second))
	for {
		kind, payload, err := readFrame(s.reader)
		if err != nil {
			break
		}
		if kind == frameOutput {
			x.total += int64(len(payload) - outputHeaderSize)
		}
	}
	if x.total > maxUnacknowledged || x.total < maxUnacknowledged/2 {
		t.Errorf("%d bytes unacknowledged", x.total)
	}
	s.conn.Close()
	s, x = h.accept(0), newTranscript()
	x.takeAll(s)
	s.finish()
	h.exitCode()
	x.check(t, size)
}

func TestSingleBytesAreJoinedAndBounded(t *testing.T) {
	o := newOutput()
	now := time.Now()
	for i := 0; i < 1000; i++ {
		o.reserve(maxRead)
		o.commit(maxRead, streamStdout, now, []byte{byte(i)})
	}
	if len(o.chunks) != 1 || o.total != 1000 || o.held != 1000+chunkOverhead {
		t.Errorf("%d chunks, total %d, held %d", len(o.chunks), o.total, o.held)
	}
	o.acknowledge(500)
	piece, found, _, _ := o.next(0)
	if !found || piece.offset != 500 || !bytes.Equal(piece.data[:2], []byte{244, 245}) || o.held != 500+chunkOverhead {
		t.Errorf("%v %d held %d", found, piece.offset, o.held)
	}
	o.acknowledge(99999)
	if o.held != 0 || o.base != 1000 {
		t.Errorf("held %d base %d after everything was acknowledged", o.held, o.base)
	}
}

func TestHowItEndedIsTold(t *testing.T) {
	plain, text := filepath.Join(t.TempDir(), "plain"), filepath.Join(t.TempDir(), "text")
	write(t, plain, []byte("#!/bin/sh\n"))
	write(t, text, []byte("echo a script without a first line\n"))
	if err := os.Chmod(text, 0o755); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name     string
		argv     []string
		act      func(h *host, s *session)
		code     int
		signal   int
		inDetail string
	}{
		{"success", []string{"true"}, nil, 0, 0, ""},
		{"own signal", []string{"sh", "-c", "kill -SEGV $$"}, nil, 139, 11, ""},
		{"host says TERM", []string{"sleep", "60"}, func(_ *host, s *session) { s.say(frameSignal, signalRequest{"TERM"}) }, 143, 15, ""},
		{"host says KILL", []string{"sh", "-c", "trap '' TERM; sleep 60"}, func(_ *host, s *session) { s.say(frameSignal, signalRequest{"KILL"}) }, 137, 9, ""},
		{"docker stop", []string{"sleep", "60"}, func(h *host, _ *session) { _ = h.guest.Process.Signal(syscall.SIGTERM) }, 143, 15, ""},
		{"interrupt", []string{"sleep", "60"}, func(h *host, _ *session) { _ = h.guest.Process.Signal(syscall.SIGINT) }, 130, 2, ""},
		{"TERM is handled", []string{"sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"}, func(_ *host, s *session) {
			s.read()
			s.say(frameSignal, signalRequest{"TERM"})
		}, 3, 0, ""},
		{"missing command", []string{"no-such-command"}, nil, 127, 0, "no-such-command: command not found"},
		{"missing path", []string{"/no/such"}, nil, 127, 0, "/no/such: no such file"},
		{"not executable", []string{plain}, nil, 126, 0, "not executable"},
		{"not a program", []string{text}, nil, 126, 0, "not an executable format"},
		{"a folder", []string{"/etc"}, nil, 126, 0, "is a directory"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, nil, c.argv...)
			h.listen()
			h.startGuest()
			s, x := h.accept(0), newTranscript()
			if c.act != nil {
				c.act(h, s)
				x.total = int64(len("ready\n")) * int64(btoi(strings.Contains(c.argv[len(c.argv)-1], "ready")))
			}
			x.takeAll(s)
			s.finish()
			code, number := h.exitCode(), 0
			if x.exited.Signal != nil {
				number = *x.exited.Signal
			}
			if code != c.code || x.exited.ExitCode != c.code || number != c.signal {
				t.Errorf("exit %d, report %+v, signal %d", code, x.exited, number)
			}
			if !strings.Contains(x.exited.Detail, c.inDetail) || (c.inDetail == "") != (x.exited.Detail == "") {
				t.Errorf("detail %q", x.exited.Detail)
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestAMissingInterpreterIsToldFromAMissingFile(t *testing.T) {
	script := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(script, []byte("#!/no/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, nil, script)
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	x.takeAll(s)
	s.finish()
	if h.exitCode() != 127 || !strings.Contains(x.exited.Detail, "interpreter") {
		t.Errorf("%+v", x.exited)
	}
}

func TestAMissingWorkdirIsTold(t *testing.T) {
	h := newHost(t, map[string]any{"workdir": "/no/such/folder"}, "true")
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	x.takeAll(s)
	s.finish()
	if h.exitCode() != 127 || !strings.Contains(x.exited.Detail, "/no/such/folder") {
		t.Errorf("%+v", x.exited)
	}
}

func TestTheAgentHasCleanSignalsAnEmptyInputAndItsOwnGroup(t *testing.T) {
	// grep's own status: a shell blocks all signals for the moment of its vfork.
	h := newHost(t, nil, "sh", "-c", `cat; grep -E '^Sig(Ign|Blk)' /proc/self/status; [ "$(ps -o pgid= -p $$ | tr -d ' ')" = $$ ] && echo own-group; pwd`)
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	x.takeAll(s)
	s.finish()
	h.exitCode()
	lines := strings.Fields(x.streams[1].String())
	want := []string{"SigBlk:", strings.Repeat("0", 16), "SigIgn:", strings.Repeat("0", 16), "own-group", filepath.Dir(h.out)}
	if fmt.Sprint(lines) != fmt.Sprint(want) {
		t.Errorf("got %q", lines)
	}
}

func TestOrphansAreReapedWhileTheAgentLives(t *testing.T) {
	h := newHost(t, nil, "sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; echo ready; exec sleep 60")
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	x.take(s)
	time.Sleep(200 * time.Millisecond)
	waitFor(t, "only the agent is left", func() bool { return children(t, h.guest.Process.Pid) == 1 })
	s.say(frameSignal, signalRequest{"KILL"})
	x.takeAll(s)
	s.finish()
	h.exitCode()
}

// children counts the guest's children, zombies among them.
func children(t *testing.T, parent int) int {
	t.Helper()
	count := 0
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if fields[1] == strconv.Itoa(parent) {
			count++
		}
	}
	return count
}

func TestWhatTheAgentLeavesBehindIsEnded(t *testing.T) {
	h := newHost(t, nil, "sh", "-c", "sleep 60 & echo started; exit 0")
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	begun := time.Now()
	x.takeAll(s)
	s.finish()
	if code := h.exitCode(); code != 0 || time.Since(begun) > 10*time.Second {
		t.Errorf("exit %d after %v", code, time.Since(begun))
	}
}

func TestWithoutAHostTheGuestEndsAfterItsPatience(t *testing.T) {
	h := newHost(t, map[string]any{"finish_wait_seconds": 0.3}, "sh", "-c", "exit 5")
	h.startGuest()
	if code := h.exitCode(); code != 5 {
		t.Errorf("exit %d", code)
	}
}

func TestAnUnreadableConfigurationIsDockersOwnCode(t *testing.T) {
	h := newHost(t, nil, "true")
	if err := os.WriteFile(filepath.Join(h.folder, "guest.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.startGuest()
	if code := h.exitCode(); code != exitGuestFailed {
		t.Errorf("exit %d", code)
	}
}

func TestAFrameOverTheLimitEndsTheConnectionNotTheRun(t *testing.T) {
	h := newHost(t, nil, "sh", "-c", "sleep 0.3; echo whole")
	h.listen()
	h.startGuest()
	s := h.accept(0)
	var header [5]byte
	header[0] = frameAck
	binary.BigEndian.PutUint32(header[1:], maxPayload+1)
	_, _ = s.conn.Write(header[:])
	s, x := h.accept(0), newTranscript()
	x.takeAll(s)
	s.finish()
	if h.exitCode() != 0 || x.streams[1].String() != "whole\n" {
		t.Errorf("got %q", x.streams[1])
	}
}
