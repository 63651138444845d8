package main

import (
	"runtime/debug"
	"syscall"
	"unsafe"
)

const (
	prSetDumpable       = 4
	prSetChildSubreaper = 36
)

// protect hardens the guest against the agent, which runs under the same user.
func protect() {
	// Not dumpable: the agent can neither trace the guest nor open its /proc/1/mem. execve gives the agent
	// its own flag back. A kernel shields PID 1 from the signals of its own namespace, gVisor does not: an
	// agent that kills or stops the guest ends or stalls its own run and nobody else's; Docker's exit status
	// and the run's time limit tell it outside.
	prctl(prSetDumpable, 0)
	// Orphans come to the guest also where it is not PID 1 (its tests).
	prctl(prSetChildSubreaper, 1)
	resetInternalSignals()
	// 8 MiB of output is the most it holds; the memory limit is the agent's to use.
	debug.SetGCPercent(50)
}

func prctl(option, value uintptr) {
	// A kernel without the option leaves the guest working, only less guarded.
	_, _, _ = syscall.Syscall6(syscall.SYS_PRCTL, option, value, 0, 0, 0, 0)
}

// resetInternalSignals gives the C library's own signals (32, 33) their default again: a parent that was started by
// posix_spawn may pass them on as ignored, and Go leaves both alone. The agent starts with nothing ignored.
func resetInternalSignals() {
	const setSize = 8
	var asDefault [64]byte // a kernel sigaction of zeros: SIG_DFL, no flags, empty mask
	for _, number := range []uintptr{32, 33} {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, number, uintptr(unsafe.Pointer(&asDefault[0])), 0, setSize, 0, 0)
	}
}
