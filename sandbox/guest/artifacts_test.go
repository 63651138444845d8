package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func reasons(list []skipped) map[string]string {
	found := map[string]string{}
	for _, item := range list {
		found[item.Path] = item.Reason
	}
	return found
}

func TestArtifactsAreRegularFilesAlone(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, []byte("secret"))
	h := newHost(t, nil, "true")
	big := bytes.Repeat([]byte("0123456789abcdef"), 200_000) // 3.2 MB: many D frames
	write(t, filepath.Join(h.out, "report.md"), []byte("# fine"))
	write(t, filepath.Join(h.out, "deep/er/big.bin"), big)
	write(t, filepath.Join(h.out, "empty"), nil)
	write(t, filepath.Join(h.out, "suid"), []byte("x"))
	write(t, filepath.Join(h.out, "bad\nname"), []byte("x"))
	for _, err := range []error{
		os.Chmod(filepath.Join(h.out, "suid"), 0o4755|os.ModeSetuid),
		os.Symlink(secret, filepath.Join(h.out, "link")),
		os.Symlink(filepath.Dir(secret), filepath.Join(h.out, "linked-folder")),
		os.Symlink("link", filepath.Join(h.out, "deep/loop")),
		syscall.Mkfifo(filepath.Join(h.out, "fifo"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	x.takeAll(s)
	s.finish()
	h.exitCode()
	want := map[string][]byte{"report.md": []byte("# fine"), "deep/er/big.bin": big, "empty": {}, "suid": []byte("x")}
	if len(x.files) != len(want) || x.sent.Artifacts != len(want) {
		t.Errorf("%d files, said %d", len(x.files), x.sent.Artifacts)
	}
	for path, data := range want {
		digest := sha256.Sum256(data)
		if !bytes.Equal(x.files[path], data) || x.digests[path] != hex.EncodeToString(digest[:]) {
			t.Errorf("%s: %d bytes, digest %s", path, len(x.files[path]), x.digests[path])
		}
	}
	why := reasons(x.sent.Skipped)
	for path, reason := range map[string]string{
		"link": "symbolic link", "linked-folder": "symbolic link", "deep/loop": "symbolic link",
		"fifo": "not a regular file", "bad\nname": "its name has characters that cannot be shown",
	} {
		if why[path] != reason {
			t.Errorf("%q: %q", path, why[path])
		}
	}
}

func TestAnOutputFolderThatBecameALinkIsNotFollowed(t *testing.T) {
	secret := t.TempDir()
	write(t, filepath.Join(secret, "key"), []byte("secret"))
	h := newHost(t, map[string]any{"env": map[string]string{"PATH": os.Getenv("PATH"), "SECRET": secret}},
		"sh", "-c", `rmdir out && ln -s "$SECRET" out`)
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	x.takeAll(s)
	s.finish()
	h.exitCode()
	if len(x.files) != 0 || !strings.Contains(reasons(x.sent.Skipped)["."], "not a directory") {
		t.Errorf("files %v, skipped %v", x.files, x.sent.Skipped)
	}
}

func TestAPathIsNotFollowedThroughALinkWhenRead(t *testing.T) {
	root, secret := t.TempDir(), t.TempDir()
	write(t, filepath.Join(secret, "key"), []byte("secret"))
	if err := os.Symlink(secret, filepath.Join(root, "folder")); err != nil {
		t.Fatal(err)
	}
	if file, err := openArtifact(root, "folder/key"); err == nil {
		file.Close()
		t.Error("the link was followed")
	}
}

func TestTheLimitsOfArtifactsHold(t *testing.T) {
	folder := t.TempDir()
	for i := 0; i < maxArtifacts+10; i++ {
		write(t, filepath.Join(folder, fmt.Sprintf("%03d", i)), []byte("1234567890"))
	}
	found, left := collectArtifacts(folder, 1<<20)
	if len(found) != maxArtifacts || len(left) != 10 {
		t.Errorf("count: %d found, %d skipped", len(found), len(left))
	}
	found, left = collectArtifacts(folder, 25)
	if len(found) != 2 || !strings.Contains(left[0].Reason, "limit of 25 bytes") || len(left) != maxSkipped+1 {
		t.Errorf("bytes: %d found, %d skipped", len(found), len(left))
	}
	if found, left = collectArtifacts(filepath.Join(folder, "absent"), 1); found != nil || left != nil {
		t.Error("no output folder is no artifact and no complaint")
	}
}

func TestArtifactsThatAreStoredAreNotSentAgain(t *testing.T) {
	h := newHost(t, nil, "true")
	for _, name := range []string{"a", "b", "c"} {
		write(t, filepath.Join(h.out, name), []byte(name))
	}
	h.listen()
	h.startGuest()
	s, x := h.accept(0), newTranscript()
	for x.digests["a"] == "" {
		x.take(s)
	}
	s.say(frameStored, stored{"a"})
	s.conn.Close()
	// The host itself remembers "a" and, from elsewhere, "b".
	s, x = h.accept(0, "a", "b"), newTranscript()
	x.takeAll(s)
	s.finish()
	h.exitCode()
	if len(x.files) != 1 || string(x.files["c"]) != "c" || x.sent.Artifacts != 3 || x.exited == nil {
		t.Errorf("files %v, sent %+v", x.files, x.sent)
	}
}
