package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// defaultPath is what Docker gives a container whose image names no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// config is guest.json, written by the runtime before the container starts.
type config struct {
	Argv    []string    `json:"argv"`
	Env     environment `json:"env"`
	Workdir string      `json:"workdir"`
	// UID is applied only where the guest itself runs as root; normally Docker has done it.
	UID int    `json:"uid"`
	In  string `json:"in"`
	Out string `json:"out"`
	// MaxArtifactBytes bounds all artifacts together; the runtime enforces it again outside.
	MaxArtifactBytes int64 `json:"max_artifact_bytes"`
	// FinishWaitSeconds is how long the guest waits for a silent host after the agent's end.
	FinishWaitSeconds float64 `json:"finish_wait_seconds"`
	// LeaseSeconds is what was left of the run's lease at WrittenAt (Unix seconds, 0 when it is not said).
	LeaseSeconds float64 `json:"lease_seconds"`
	WrittenAt    float64 `json:"written_at"`
	// Wait says that nothing starts before the host's job (a J frame), whose fields go before those of the file.
	Wait bool `json:"wait"`
	// WaitSeconds is how long it waits without any connection to a host; then it ends.
	WaitSeconds float64 `json:"wait_seconds"`
	// Rehearse says that there is time before the job to make its start quick.
	Rehearse bool `json:"rehearse"`

	// Listen maps a port on the loopback to the name of a host's socket in the run folder.
	Listen map[string]string `json:"listen"`

	folder string
	socket string
}

// environment accepts {"K": "V"} and the image's own form ["K=V"].
type environment []string

func (e *environment) UnmarshalJSON(text []byte) error {
	var list []string
	if json.Unmarshal(text, &list) == nil {
		*e = list
		return nil
	}
	*e = nil
	var table map[string]string
	if err := json.Unmarshal(text, &table); err != nil {
		return fmt.Errorf("env is neither an object of strings nor a list of K=V: %w", err)
	}
	for key, value := range table {
		*e = append(*e, key+"="+value)
	}
	return nil
}

// lookup gives the last value of a name, as execve's receivers mostly do.
func (e environment) lookup(name string) (string, bool) {
	for i := len(e) - 1; i >= 0; i-- {
		if key, value, found := cut(e[i]); found && key == name {
			return value, true
		}
	}
	return "", false
}

func cut(entry string) (key, value string, found bool) {
	for i := 0; i < len(entry); i++ {
		if entry[i] == '=' {
			return entry[:i], entry[i+1:], true
		}
	}
	return entry, "", false
}

// startLease counts from when the file was written.
func (c config) startLease() *lease {
	written := time.Time{}
	if c.WrittenAt > 0 {
		written = time.UnixMicro(int64(c.WrittenAt * 1e6))
	}
	return newLease(c.LeaseSeconds, written)
}

func readConfig(folder string) (config, error) {
	c := config{
		Workdir:           "/workspace",
		Out:               "/workspace/out",
		MaxArtifactBytes:  64 << 20,
		FinishWaitSeconds: 600,
		LeaseSeconds:      120,
		WaitSeconds:       30,
		folder:            folder,
		socket:            filepath.Join(folder, "guest.sock"),
	}
	text, err := os.ReadFile(filepath.Join(folder, "guest.json"))
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("guest.json: %w", err)
	}
	if c.Wait {
		return c, nil
	}
	return c, c.complete()
}

// with gives the configuration that a job makes of this one.
func (c config) with(job []byte) (config, error) {
	if err := json.Unmarshal(job, &c); err != nil {
		return c, fmt.Errorf("job: %w", err)
	}
	return c, c.complete()
}

// complete refuses what names nothing to run, and gives PATH where nobody did.
func (c *config) complete() error {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return fmt.Errorf("guest.json: argv is empty")
	}
	if _, found := c.Env.lookup("PATH"); !found {
		c.Env = append(c.Env[:len(c.Env):len(c.Env)], "PATH="+defaultPath)
	}
	return nil
}
