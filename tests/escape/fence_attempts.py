"""Attacks from inside on the fence itself: each is a function of ``inside/``, many in one sandbox."""

from __future__ import annotations

from tests.escape.table import Attempt, Defence


def _group(
    module: str, *rows: tuple[str, str, str | set[Defence]], needs: dict[str, str] | None = None
) -> list[Attempt]:
    """Rows of (function, what success is, the defences to switch off or why no control can be had)."""
    made: list[Attempt] = []
    for function, won, off in rows:
        no_control = off if isinstance(off, str) else ""
        defences = frozenset[Defence]() if isinstance(off, str) else frozenset(off)
        path = (needs or {}).get(function, "")
        made.append(Attempt(f"{module}.{function}", won, defences, no_control, path))
    return made


_ROOT = {Defence.GVISOR, Defence.SECCOMP, Defence.CAPABILITIES, Defence.USER}
_PRIVILEGED = {Defence.GVISOR, Defence.UNPRIVILEGED, Defence.SECCOMP, Defence.CAPABILITIES, Defence.USER}
_NETWORK = {Defence.NO_NETWORK}
_WRITABLE = {Defence.READ_ONLY_BINDS, Defence.USER}

NETWORK = _group(
    "network",
    ("tcp_ipv4", "a public IPv4 address answers", _NETWORK),
    ("udp_ipv4", "a datagram to a public IPv4 address is answered", _NETWORK),
    ("tcp_ipv6", "a public IPv6 address answers", _NETWORK),
    ("udp_ipv6", "a datagram to a public IPv6 address is answered", _NETWORK),
    ("ipv4_mapped", "an IPv4 address answers behind an IPv6 one", _NETWORK),
    ("dns_query", "a public name server answers", _NETWORK),
    ("dns_of_docker", "the engine's name server answers", _NETWORK),
    ("metadata_ipv4", "the cloud's metadata service answers", _NETWORK),
    ("metadata_ipv6", "the same by IPv6", _NETWORK),
    ("link_local", "a neighbour on the link answers", _NETWORK),
    ("loopback_of_the_host", "a service on the host's loopback answers", _NETWORK),
    ("docker_over_tcp", "the engine answers over TCP", _NETWORK),
    ("gateway_of_docker", "the host answers at the bridge's address", _NETWORK),
    ("private_network", "a neighbour in the company's network answers", _NETWORK),
    ("multicast", "somebody on the link answers", _NETWORK),
    ("icmp_by_ping_socket", "an echo comes back", {Defence.GVISOR, Defence.NO_NETWORK}),
    ("icmp_by_raw_socket", "a raw IPv4 socket is opened", {Defence.GVISOR, Defence.CAPABILITIES, Defence.USER}),
    ("raw_ipv6", "a raw IPv6 socket is opened", {Defence.GVISOR, Defence.CAPABILITIES, Defence.USER}),
    ("packet_socket", "a packet socket is opened", _ROOT),
    ("vsock", "a socket to the hypervisor is opened", {Defence.GVISOR, Defence.SECCOMP}),
    ("kernel_crypto", "a socket to the kernel's cryptography is opened", {Defence.GVISOR, Defence.SECCOMP}),
    ("exotic_family", "a socket of a rare family is opened", _ROOT),
    ("abstract_socket", "an abstract socket of the host answers", {Defence.GVISOR, Defence.NO_NETWORK}),
    ("netlink_new_address", "the loopback gets another address", {Defence.CAPABILITIES, Defence.USER}),
    ("netlink_sockets_of_the_host", "the host's sockets are listed", {Defence.GVISOR, Defence.NO_NETWORK}),
    ("join_network_namespace", "it joins the host's network", {*_ROOT, Defence.OWN_PROCESSES}),
    needs={"vsock": "family 40", "kernel_crypto": "family 38"},
)

FILES = _group(
    "files",
    ("by_its_path", "a file of the host is read by its path", {Defence.NOTHING_ELSE}),
    ("by_dots", "…by .. from each mount", {Defence.NOTHING_ELSE}),
    ("by_descriptor_of_a_mount", "…by a descriptor of the run's folder",
     "that a mount cannot be left upwards is any kernel's own rule: no setting of ours holds it"),
    ("by_root_of_pid_1", "…by the root of process 1", {*_ROOT, Defence.OWN_PROCESSES}),
    ("by_any_process", "…by root, folder or descriptor of any process", {*_ROOT, Defence.OWN_PROCESSES}),
    ("by_file_handle", "…by its inode, past all folders", _ROOT),
    ("by_symlink_in_workspace", "…by a link of its own", {Defence.NOTHING_ELSE}),
    ("folder_of_another_run", "another run's folder shows", {Defence.OWN_FOLDER, Defence.USER}),
    ("write_into_run", "a file is planted beside the socket", _WRITABLE),
    ("write_into_inputs", "a file is planted among the inputs", _WRITABLE),
    ("overwrite_an_input", "an input can be changed", _WRITABLE),
    ("reopen_an_input_by_proc", "…through a descriptor for reading", _WRITABLE),
    ("change_mode_of_an_input", "an input gets a setuid bit", _WRITABLE),
    ("overwrite_the_guest", "the guest's program can be changed", _WRITABLE),
    ("change_guest_json", "the guest's orders can be changed", _WRITABLE),
    ("write_into_the_image", "the image is written", {Defence.READ_ONLY_ROOT, Defence.USER}),
    ("write_beside_awgp", "a file stands beside the mounts", {Defence.READ_ONLY_ROOT, Defence.USER}),
    ("host_sockets", "an engine's control socket answers", {Defence.NOTHING_ELSE, Defence.USER}),
    ("secret_in_environment", "the environment holds a secret of the host's", {Defence.OUTSIDE}),
    ("secret_in_guest_json", "guest.json holds a secret", {Defence.OUTSIDE}),
    ("secret_of_processes", "a process' environment or arguments hold one", {Defence.OUTSIDE}),
)

RUN_FOLDER = _group(
    "run_folder",
    ("create_a_socket", "a socket of the agent's beside the run's", {*_WRITABLE, Defence.NO_SOCKET_MAKING}),
    ("unlink_the_socket", "the run's socket is removed", _WRITABLE),
    ("rename_the_socket", "…or renamed", _WRITABLE),
    ("replace_by_a_link", "a link in its place", _WRITABLE),
    ("hardlink_the_socket", "a second name for it", _WRITABLE),
    ("close_the_socket_to_others", "its mode is changed", _WRITABLE),
    ("socket_of_another_run", "another run's socket is connected", {Defence.OWN_FOLDER, Defence.USER}),
    ("pass_a_descriptor", "a descriptor reaches the host", {Defence.GVISOR}),
    ("take_a_descriptor", "a descriptor of the host's arrives", {Defence.OUTSIDE}),
)

PROC = _group(
    "proc",
    ("kcore", "the host's memory can be read", _PRIVILEGED),
    ("kernel_log", "the host's kernel log can be read", _ROOT),
    ("kernel_symbols", "addresses of the host's kernel", _ROOT),
    ("sysrq", "the host can be told to reboot", _PRIVILEGED),
    ("core_pattern", "a program for the host to run at a crash", _PRIVILEGED),
    ("modprobe_path", "a program for the host to run at a missing module", _PRIVILEGED),
    ("hotplug_helper", "a program for the host to run at a device", _PRIVILEGED),
    ("panic_setting", "how the host meets a panic", _PRIVILEGED),
    ("memory_overcommit", "how the host gives memory", _PRIVILEGED),
    ("binary_formats", "a program for the host to run at a file", _PRIVILEGED),
    ("memory_limit", "its own cgroup's limit is written", _PRIVILEGED),
    ("release_agent", "a program for the host to run when a cgroup empties", _PRIVILEGED),
    ("debug_and_trace", "the kernel's debug files", _PRIVILEGED),
    ("firmware", "the host's firmware tables", _PRIVILEGED),
    ("block_devices", "the host's disks by name", {Defence.GVISOR}),
    ("mounts_of_the_host", "the host's paths by name", {Defence.GVISOR}),
    ("processes_of_the_host", "a process of the host's shows", {Defence.GVISOR, Defence.OWN_PROCESSES}),
    needs={
        "kcore": "/proc/kcore",
        "kernel_symbols": "/proc/kallsyms",
        "modprobe_path": "/proc/sys/kernel/modprobe",
        "hotplug_helper": "/sys/kernel/uevent_helper",
        "sysrq": "/proc/sysrq-trigger",
        "firmware": "/sys/firmware",
    },
)

DEVICES = _group(
    "devices",
    ("make_the_hosts_disk", "a node of the host's disk is made and opened", _PRIVILEGED),
    ("make_memory", "a node of the kernel's memory or log is made and opened", _PRIVILEGED),
    ("open_memory", "/dev/mem is opened", _PRIVILEGED),
    ("open_kvm", "/dev/kvm is opened", _PRIVILEGED),
    ("make_a_tunnel", "an interface of its own", {Defence.CAPABILITIES, Defence.USER}),
    ("serve_a_file_system", "a file system of its own", {Defence.SECCOMP, Defence.CAPABILITIES, Defence.USER}),
    ("open_loop_control", "/dev/loop-control is opened", _PRIVILEGED),
    ("open_kernel_log", "/dev/kmsg is opened", _PRIVILEGED),
    ("open_disk", "a disk in /dev is opened", _PRIVILEGED),
    ("open_vsock", "/dev/vsock is opened", _PRIVILEGED),
    ("type_into_a_terminal", "a character is typed for somebody else",
     "a sandbox has no terminal, with or without its fence, so there is nobody to type for"),
    needs={
        "open_memory": "/dev/mem", "open_kvm": "/dev/kvm",
        "open_loop_control": "/dev/loop-control", "open_vsock": "/dev/vsock",
    },
)  # fmt: skip

_TRACE = {Defence.SECCOMP, Defence.CAPABILITIES, Defence.USER}
PROCESSES = _group(
    "processes",
    ("trace_the_guest", "the guest is traced", _TRACE),
    ("seize_the_guest", "the guest is seized", _TRACE),
    ("trace_a_child", "ptrace can be used at all", {Defence.SECCOMP}),
    ("read_the_guests_memory", "the guest's memory is read", _TRACE),
    ("write_the_guests_memory", "the guest's memory is addressed", _TRACE),
    ("guest_memory_by_proc", "the guest's memory is read by /proc", _ROOT),
    ("descriptors_of_the_guest", "the guest's descriptors show", {Defence.CAPABILITIES, Defence.USER}),
    ("take_the_guests_descriptor", "a descriptor of the guest's is taken", _ROOT),
    ("compare_with_the_guest", "what the guest shares is compared", _ROOT),
    ("move_the_guests_pages", "the guest's pages are looked at", _ROOT),
    ("signal_the_host", "a process of the host can be signalled",
     {Defence.GVISOR, Defence.OWN_PROCESSES, Defence.USER, Defence.CAPABILITIES}),
)

_ADMIN = {Defence.SECCOMP, Defence.CAPABILITIES, Defence.USER}
MOUNTS = _group(
    "mounts",
    ("mount_tmpfs", "a file system is mounted", _ADMIN),
    ("mount_proc", "a fresh /proc is mounted", _ADMIN),
    ("bind_over_the_guest", "the guest's program is hidden", _ADMIN),
    ("bind_remount_writable", "the run's folder becomes writable", _ADMIN),
    ("remount_root_writable", "the image becomes writable", _ADMIN),
    ("overlay", "an overlay is mounted", _ADMIN),
    ("unmount_the_run", "a mount is taken away", _ADMIN),
    ("new_mount_interface", "a file system by fsopen", _ROOT),
    ("clone_a_tree", "a tree of mounts is cloned", _ROOT),
    ("mount_attributes", "a mount's attributes are set", _ROOT),
    ("pivot_root", "it has another root", _ADMIN),
    ("chroot", "it has another root", _ADMIN),
    ("new_user_namespace", "users of its own", {Defence.SECCOMP}),
    ("new_mount_namespace", "mounts of its own", _ADMIN),
    ("new_network_namespace", "a network of its own", _ADMIN),
    ("new_pid_namespace", "processes of its own", _ADMIN),
    ("user_namespace_by_clone", "a child with users of its own", {Defence.SECCOMP}),
    ("mount_in_namespaces_by_clone3", "a mount in namespaces that the filter cannot see", {Defence.SECCOMP}),
    ("join_the_hosts_mounts", "it joins process 1's mounts", _ADMIN),
    ("rename_the_host", "the host name is set", _ADMIN),
)

RIGHTS = _group(
    "rights",
    ("become_root", "it is root", {Defence.USER}),
    ("become_root_group", "it is in root's group", {Defence.USER}),
    ("join_groups", "it is in other groups", {Defence.USER, Defence.CAPABILITIES}),
    ("take_capabilities", "it may administer", {Defence.USER, Defence.CAPABILITIES}),
    ("setuid_program", "a setuid program of root's runs as root", {Defence.NO_NEW_PRIVILEGES, Defence.GVISOR}),
    ("file_capability", "a file of its own carries capabilities", {Defence.USER, Defence.CAPABILITIES, Defence.GVISOR}),
    ("give_away_a_setuid_file", "a setuid file that belongs to root", {Defence.USER, Defence.CAPABILITIES}),
    ("undo_no_new_privileges", "new privileges are possible again",
     "no kernel takes the mark back, whoever asks: there is no defence of ours to switch off"),
    ("undo_seccomp", "the filter is off",
     "no kernel takes a filter back, whoever asks: there is no defence of ours to switch off"),
    ("raise_open_files", "a hard limit is raised", {Defence.USER, Defence.CAPABILITIES}),
)  # fmt: skip

KERNEL = _group(
    "kernel",
    ("whose_kernel", "the host's own kernel serves its calls", {Defence.GVISOR}),
    ("keyrings", "a keyring", {Defence.GVISOR, Defence.SECCOMP}),
    ("add_a_key", "a key in the host's kernel", {Defence.GVISOR, Defence.SECCOMP}),
    ("bpf", "bpf is reached", {Defence.GVISOR, Defence.SECCOMP}),
    ("io_uring", "a ring of io_uring", {Defence.GVISOR, Defence.SECCOMP}),
    ("userfaultfd", "page faults in its own hands", _ROOT),
    ("perf_events", "perf is reached", {Defence.GVISOR, Defence.SECCOMP}),
    ("load_a_module", "loading of modules is reached", _PRIVILEGED),
    ("remove_a_module", "removal of modules is reached", _PRIVILEGED),
    ("another_kernel", "kexec is reached", _PRIVILEGED),
    ("reboot", "reboot is reached", _ROOT),
    ("set_the_clock", "the clock is reached", _ROOT),
    ("adjust_the_clock", "the clock's pace is reached", _ROOT),
    ("swap", "swapping is reached", _ROOT),
    ("quotas", "quotas are reached", _ROOT),
    ("accounting", "accounting is reached", _ROOT),
    ("watch_all_files", "all file events of a mount", _ROOT),
    ("secret_memory", "memory that the kernel hides from itself", {Defence.GVISOR, Defence.SECCOMP}),
    ("name_a_handle", "file handles", {Defence.GVISOR, Defence.SECCOMP}),
    ("io_ports", "the machine's ports by iopl", _ROOT),
    ("some_io_ports", "the machine's ports by ioperm", _ROOT),
    ("local_descriptors", "a table of segments", {Defence.GVISOR, Defence.SECCOMP}),
    ("hang_up_the_terminal", "a terminal is hung up", _ROOT),
    ("old_32_bit_calls", "a refused call goes through the 32-bit table", {Defence.GVISOR, Defence.SECCOMP}),
    ("x32_calls", "…or through the third one", {Defence.GVISOR, Defence.SECCOMP}),
    needs={
        "x32_calls": "x32", "io_ports": "call 172", "some_io_ports": "call 173", "load_a_module": "/proc/modules",
        "remove_a_module": "/proc/modules", "another_kernel": "/sys/kernel/kexec_loaded",
    },
)

ATTEMPTS = [*NETWORK, *FILES, *RUN_FOLDER, *PROC, *DEVICES, *PROCESSES, *MOUNTS, *RIGHTS, *KERNEL]
