package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// A frame is one byte of type, four bytes of length (big-endian), and the payload.
const (
	maxPayload       = 1 << 20
	outputHeaderSize = 8 + 1 + 8
)

// From the host.
const (
	frameWelcome = 'W'
	frameAck     = 'K'
	frameSignal  = 'S'
	frameStored  = 'C'
	frameFinish  = 'F'
	frameLease   = 'L'
	frameJob     = 'J'
)

// From the guest.
const (
	frameHello         = 'H'
	frameOutput        = 'O'
	frameExited        = 'X'
	frameArtifact      = 'A'
	frameArtifactData  = 'D'
	frameArtifactEnd   = 'E'
	frameArtifactsSent = 'Z'
)

type hello struct {
	PID          int    `json:"pid"`
	GuestVersion string `json:"guest_version"`
	// Waiting says that there is no agent yet: a job may be said, also one that was said before.
	Waiting bool `json:"waiting,omitempty"`
}

type welcome struct {
	OutputOffset  int64    `json:"output_offset"`
	ArtifactsDone []string `json:"artifacts_done"`
}

type ack struct {
	Offset int64 `json:"offset"`
}

type signalRequest struct {
	Signal string `json:"signal"`
}

type leaseLeft struct {
	Seconds float64 `json:"seconds"`
	// Resumed says that the runtime had paused the sandbox and lets it go on with this.
	Resumed bool `json:"resumed,omitempty"`
}

type stored struct {
	Path string `json:"path"`
}

type artifactBegin struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

type artifactEnd struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

type artifactsSent struct {
	Artifacts int       `json:"artifacts"`
	Skipped   []skipped `json:"skipped"`
}

// skipped is something in the output folder that is not an artifact, and why.
type skipped struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

func writeFrame(w *bufio.Writer, kind byte, payload []byte) error {
	if len(payload) > maxPayload {
		return fmt.Errorf("frame %c of %d bytes is over the limit", kind, len(payload))
	}
	var header [5]byte
	header[0] = kind
	binary.BigEndian.PutUint32(header[1:], uint32(len(payload)))
	if _, err := w.Write(header[:]); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

func writeMessage(w *bufio.Writer, kind byte, message any) error {
	payload, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return writeFrame(w, kind, payload)
}

func writeOutput(w *bufio.Writer, piece chunk) error {
	var header [5 + outputHeaderSize]byte
	header[0] = frameOutput
	binary.BigEndian.PutUint32(header[1:], uint32(outputHeaderSize+len(piece.data)))
	binary.BigEndian.PutUint64(header[5:], uint64(piece.offset))
	header[13] = piece.stream
	binary.BigEndian.PutUint64(header[14:], uint64(piece.at.UnixMicro()))
	if _, err := w.Write(header[:]); err != nil {
		return err
	}
	_, err := w.Write(piece.data)
	return err
}

func readFrame(r *bufio.Reader) (kind byte, payload []byte, err error) {
	var header [5]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size > maxPayload {
		return 0, nil, fmt.Errorf("frame %c of %d bytes is over the limit", header[0], size)
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(r, payload)
	return header[0], payload, err
}
