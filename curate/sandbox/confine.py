"""Restrictions that a decoder's process puts on itself before it opens a file: no writes outside a scratch directory, no network.

Linux only, each mechanism where the kernel supports it. Neither the process nor its children can undo them:

- Landlock (kernel 5.13): files can be written, created and removed in the scratch directory only (and devices that store nothing, such as
  /dev/null). Other processes cannot be inspected (/proc/PID/environ, ptrace). TCP is covered from kernel 6.7 on, signals from 6.12 on.
- seccomp (x86-64, ARM64): no sockets, no io_uring, and none of the calls that Landlock does not cover: those that change owners, modes, times
  and attributes of files.
- root keeps only the privileges to read any file and to change the user; the others could bypass Landlock. No core dumps.

Reading is not restricted, because a decoder may need any library, font or model. A file that can be read may end in a clip, so files that must
not be read have to belong to another user. On other systems, and in containers that forbid these calls, `confine` applies what it can and
returns that.
"""

import ctypes
import os
import platform
import resource
import stat
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""System calls of Landlock: the same numbers on every architecture."""
WRITE_FILE = 1 << 1
WRITES = WRITE_FILE | sum(1 << bit for bit in range(4, 13))
"""Rights to write a file, and to remove and create entries of every kind. Later versions (ABI) of Landlock add moving (2) and truncating (3)."""
MORE_WRITES = {2: 1 << 13, 3: 1 << 14}
TCP = 1 << 0 | 1 << 1  # bind, connect
SCOPES = 1 << 0 | 1 << 1  # abstract Unix sockets, signals
NO_NEW_PRIVILEGES, SET_SECCOMP = 38, 22
HARMLESS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
ALSO = ("/dev/nvidia*", "/dev/dri/*", "/dev/kfd")
"""GPU devices: a cut detector may run on one."""

# The audit number of the architecture; the number of `socket`; calls that change a file without writing to it.
MACHINES: Mapping[str, tuple[int, int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000003E,
        41,
        (90, 91, 92, 93, 94, 132, 188, 189, 190, 197, 198, 199, 235, 260, 261, 268, 280, 452, 463, 466),
    ),
    "aarch64": (0xC00000B7, 198, (5, 6, 7, 14, 15, 16, 52, 53, 54, 55, 88, 452, 463, 466)),
}
IO_URING = 425
X32 = 0x40000000
SECRET_NAMES = (
    "TOKEN",
    "SECRET",
    "PASSW",
    "CREDENTIAL",
    "API_KEY",
    "APIKEY",
    "ACCESS_KEY",
    "PRIVATE",
    "AUTH",
    "COOKIE",
    "SAS",
)
SECRET_STARTS = ("AWS_", "AZURE_", "GOOGLE_", "GCS_", "GCP_", "S3_", "FSSPEC_", "KUBE", "SSH_", "CI_JOB_")

CAPABILITIES = 0x20080522
"""Version of the kernel's capability structure."""
KEPT = 1 << 1 | 1 << 2 | 1 << 6 | 1 << 7  # dac_override, dac_read_search, setgid, setuid

active: list[str] = []
"""The restrictions that are active in this process."""


def confine(scratch: Path, online: bool) -> list[str]:
    """Restricts this process and all processes that it starts. Call it while the process has one thread.

    Args:
        scratch: the only directory in which files may be written.
        online: whether the network stays available, for sources on object storage.

    Returns the active restrictions, of `privileges`, `files`, `tcp`, `signals`, `attributes`, `sockets`: those that the kernel supports.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    active.clear()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # a C library without these calls
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
                active.extend(_privileges(libc))
                active.extend(_landlock(libc, scratch, online))
                active.extend(_seccomp(libc, online))
    return list(active)


def abi() -> int:
    """The kernel's version of Landlock; 0 when it has none, or when Landlock is disabled."""
    if sys.platform != "linux":
        return 0
    found = ctypes.CDLL(None, use_errno=True).syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    return max(0, int(found))


def protections() -> list[str]:
    """The active restrictions of this process; call it in a sandbox."""
    return list(active)


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without variables whose name looks like a secret or whose value is an address with a password.

    For decoders of local files. It is a deny list, because the libraries of cut detectors need variables that we do not know.
    """
    return {name: value for name, value in environment.items() if not _is_secret(name.upper(), value)}


def _is_secret(name: str, value: str) -> bool:
    with_password = "://" in value and "@" in value.split("://", 1)[1].split("/", 1)[0]
    return name.startswith(SECRET_STARTS) or any(word in name for word in SECRET_NAMES) or with_password


def _privileges(libc: ctypes.CDLL) -> Iterable[str]:
    head = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITIES, 0))
    held = ctypes.create_string_buffer(24)  # twice (low and high half) effective, permitted, inheritable
    if libc.capget(head, held) != 0:
        return []
    low, permitted, inherited, *_ = struct.unpack("=6I", held.raw)
    left = struct.pack("=6I", low & KEPT, permitted & KEPT, inherited & KEPT, 0, 0, 0)
    return ["privileges"] if libc.capset(head, ctypes.create_string_buffer(left, 24)) == 0 else []


def _landlock(libc: ctypes.CDLL, scratch: Path, online: bool) -> Iterable[str]:
    version = abi()
    if not version:
        return []
    writes = WRITES | sum(bit for known, bit in MORE_WRITES.items() if version >= known)
    tcp = TCP if version >= 4 and not online else 0
    scopes = SCOPES if version >= 6 else 0
    attributes = struct.pack("=QQQ", writes, tcp, scopes)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return []
    try:
        places = [Path(name) for name in HARMLESS] + [found for name in ALSO for found in Path("/").glob(name[1:])]
        for path, rights in [(scratch, writes), *((place, WRITE_FILE) for place in places)]:
            _allow(libc, ruleset, path, rights)
        if libc.syscall(RESTRICT_SELF, ruleset, 0) != 0:
            return []
    finally:
        os.close(ruleset)
    return ["files", *(["tcp"] if tcp else []), *(["signals"] if scopes else [])]


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= WRITE_FILE | MORE_WRITES[3]
        libc.syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


def _seccomp(libc: ctypes.CDLL, online: bool) -> Iterable[str]:
    if (known := MACHINES.get(platform.machine())) is None:
        return []
    machine, socket, attributes = known
    refused = [*attributes, IO_URING, *([] if online else [socket])]
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06  # instructions of BPF
    kill, refuse, allow = 0x80000000, 0x00050000 | 13, 0x7FFF0000  # 13: EACCES
    lines = [(load, 0, 0, 4), (equal, 1, 0, machine), (answer, 0, 0, kill), (load, 0, 0, 0)]
    if platform.machine() == "x86_64":
        lines += [(at_least, 0, 1, X32), (answer, 0, 0, refuse)]
    for number in refused:
        lines += [(equal, 0, 1, number), (answer, 0, 0, refuse)]
    lines.append((answer, 0, 0, allow))
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    filter_ = ctypes.create_string_buffer(struct.pack("@HP", len(lines), ctypes.addressof(program)))
    if libc.prctl(SET_SECCOMP, 2, filter_, 0, 0) != 0:
        return []
    return ["attributes", *([] if online else ["sockets"])]
