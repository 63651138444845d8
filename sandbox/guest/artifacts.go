package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

const (
	maxArtifacts = 256
	// What is reported as skipped is bounded too: an agent may make a million links.
	maxSkipped = 256
	maxEntries = 20000
	maxDepth   = 32
	// openPath is O_PATH: looks at an entry without opening what stands behind it. The syscall package
	// does not name it; the value is the same on amd64 and arm64.
	openPath = 0x200000
	// atWorkdir is AT_FDCWD, which it does not name either.
	atWorkdir = -100
)

// artifact is a regular file below the output folder.
//
// Its mode is not carried: set-user-id and execute bits end here by construction.
type artifact struct {
	path string
	size int64
}

// artifactWalk collects artifacts by descriptors, following no link at any level.
type artifactWalk struct {
	maxBytes   int64
	bytes      int64
	entries    int
	found      []artifact
	skipped    []skipped
	unreported int
}

func collectArtifacts(folder string, maxBytes int64) ([]artifact, []skipped) {
	walk := &artifactWalk{maxBytes: maxBytes}
	root, err := openFolder(folder)
	switch {
	case os.IsNotExist(err):
	case err != nil:
		walk.skip(".", "the output folder is not a directory: "+err.Error())
	default:
		walk.folder(root, "", 0)
	}
	if walk.unreported > 0 {
		walk.skipped = append(walk.skipped, skipped{".", fmt.Sprintf("%d more entries were skipped", walk.unreported)})
	}
	return walk.found, walk.skipped
}

func openFolder(path string) (*os.File, error) { return openFolderAt(atWorkdir, path) }

// openFolderAt opens a folder and never a link to one. In two steps, since gVisor follows a link that is opened with
// O_DIRECTORY and O_NOFOLLOW together, unless by O_PATH.
func openFolderAt(at int, name string) (*os.File, error) {
	place, err := syscall.Openat(at, name, openPath|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer syscall.Close(place)
	fd, err := syscall.Openat(place, ".", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (w *artifactWalk) skip(path, reason string) {
	if len(w.skipped) >= maxSkipped {
		w.unreported++
		return
	}
	w.skipped = append(w.skipped, skipped{strings.ToValidUTF8(path, "\uFFFD"), reason})
}

func (w *artifactWalk) folder(folder *os.File, prefix string, depth int) {
	defer folder.Close()
	names, err := folder.Readdirnames(maxEntries)
	if err != nil && len(names) == 0 {
		if err != io.EOF {
			w.skip(prefix, "cannot be listed: "+err.Error())
		}
		return
	}
	sort.Strings(names)
	for _, name := range names {
		if w.entries++; w.entries > maxEntries {
			w.skip(prefix+name, fmt.Sprintf("more than %d entries", maxEntries))
			return
		}
		w.entry(folder, prefix+name, name, depth)
	}
}

func (w *artifactWalk) entry(folder *os.File, path, name string, depth int) {
	if !printable(path) {
		w.skip(path, "its name has characters that cannot be shown")
		return
	}
	info, err := look(folder, name)
	if err != nil {
		w.skip(path, "cannot be looked at: "+err.Error())
		return
	}
	switch info.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		w.descend(folder, path, name, depth)
	case syscall.S_IFREG:
		w.file(path, info.Size)
	case syscall.S_IFLNK:
		w.skip(path, "symbolic link")
	default:
		w.skip(path, "not a regular file")
	}
}

func (w *artifactWalk) descend(folder *os.File, path, name string, depth int) {
	if depth >= maxDepth {
		w.skip(path, fmt.Sprintf("deeper than %d folders", maxDepth))
		return
	}
	inner, err := openFolderAt(int(folder.Fd()), name)
	if err != nil {
		w.skip(path, "cannot be opened: "+err.Error())
		return
	}
	w.folder(inner, path+"/", depth+1)
}

func (w *artifactWalk) file(path string, size int64) {
	switch {
	case len(w.found) >= maxArtifacts:
		w.skip(path, fmt.Sprintf("more than %d artifacts", maxArtifacts))
	case size > w.maxBytes-w.bytes:
		w.skip(path, fmt.Sprintf("%d bytes: over the limit of %d bytes for all artifacts", size, w.maxBytes))
	default:
		w.bytes += size
		w.found = append(w.found, artifact{path, size})
	}
}

func printable(path string) bool {
	if !utf8.ValidString(path) || len(path) > 1024 {
		return false
	}
	return strings.IndexFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// look is fstatat without following, by O_PATH: opening a pipe or a device could block or act.
func look(folder *os.File, name string) (syscall.Stat_t, error) {
	var info syscall.Stat_t
	fd, err := syscall.Openat(int(folder.Fd()), name, openPath|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return info, err
	}
	defer syscall.Close(fd)
	return info, syscall.Fstat(fd, &info)
}

func openBelow(folder *os.File, name string) (*os.File, error) {
	const flags = syscall.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK | syscall.O_CLOEXEC
	fd, err := syscall.Openat(int(folder.Fd()), name, flags, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openArtifact opens a found file again, part by part, so that no level of its path is followed.
func openArtifact(root, path string) (*os.File, error) {
	folder, err := openFolder(root)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(filepath.ToSlash(path), "/")
	for _, part := range parts[:len(parts)-1] {
		inner, err := openFolderAt(int(folder.Fd()), part)
		folder.Close()
		if err != nil {
			return nil, err
		}
		folder = inner
	}
	defer folder.Close()
	file, err := openBelow(folder, parts[len(parts)-1])
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		file.Close()
		return nil, fmt.Errorf("%s is no regular file any more", path)
	}
	return file, nil
}
