"""The last step before the training command, inside the sandbox: its limits, its walls, and then the command itself.

Standard library only, and started with `python -I -S`. It is told what to do by one argument of JSON:

    limits      {"RLIMIT_NPROC": 4096, ...}, as `resource` names them
    landlock    {"read": [paths], "list": [folders], "write": [paths]}; absent where bubblewrap has built the walls
    network     whether other sockets than Unix ones may be opened, where Landlock builds the walls

Under bubblewrap it is process 1 of the trial's own PID namespace: it starts the command, reaps what is orphaned, and
reports through descriptor `REPORT` how the command ended and what it left running; the kernel ends that with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import struct
import sys
import time

REPORT = 100
"""The descriptor that the runner reads the report from. The command does not inherit it."""

LEAVING = 0.3
"""Seconds that the command's helpers have to end after it."""

UNUSABLE = 126
"""Exit status where the command cannot be started, as shells have it."""

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_CAPBSET_DROP = 4, 38, 22, 24
SECCOMP_MODE_FILTER = 2
AF_UNIX = 1
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = EXECUTE | READ_FILE | READ_DIR

# By machine: the audit architecture, and the numbers of socket and prlimit64; io_uring_setup has one for all.
SYSCALLS = {"x86_64": (0xC000003E, 41, 302), "aarch64": (0xC00000B7, 198, 261)}
IO_URING_SETUP = 425


class Refused(Exception):
    """The kernel does not build the walls that were asked for."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def landlock_abi() -> int:
    """The version of Landlock that this kernel has; 0 where it has none."""
    return max(0, int(_libc().syscall(CREATE_RULESET, None, 0, 1))) if sys.platform == "linux" else 0


def no_new_privileges() -> None:
    if sys.platform == "linux" and _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise Refused("no_new_privs is refused")
    # Root's own powers would come back with the next program; out of the bounding set they cannot.
    for capability in range(64):
        if sys.platform != "linux" or _libc().prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            break


def restrict(read: list[str], listed: list[str], write: list[str], *, network: bool) -> None:
    """Landlock: nothing is read but below `read` and `write`, nothing written but below `write`.

    Below `listed` the names of files can be read, and nothing of them. Raises: Refused.
    """
    libc, abi = _libc(), landlock_abi()
    if not abi:
        raise Refused("this kernel has no Landlock")
    handled = (1 << (13 if abi < 2 else 14 if abi < 3 else 15 if abi < 5 else 16)) - 1
    # From version 4 on TCP, from 6 on abstract sockets and signals to what is outside; each field only where known.
    fields = [handled] + ([0 if network else 0b11] if abi >= 4 else []) + ([0b11] if abi >= 6 else [])
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = libc.syscall(CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        raise Refused(f"Landlock: {os.strerror(ctypes.get_errno())}")
    everything = handled & ~(MAKE_CHAR | MAKE_BLOCK)
    for paths, access in ((read, READ), (listed, READ_DIR), (write, everything)):
        for path in paths:
            try:
                place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # It has gone; then nothing has to be allowed.
            allowed = access & handled & (~0 if os.path.isdir(path) else OF_A_FILE)
            failed = libc.syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", allowed, place), 0)
            os.close(place)
            if failed:
                raise Refused(f"Landlock, {path}: {os.strerror(ctypes.get_errno())}")
    if libc.syscall(RESTRICT_SELF, ruleset, 0):
        raise Refused(f"Landlock: {os.strerror(ctypes.get_errno())}")
    os.close(ruleset)


def refuse_calls(*, network: bool) -> None:
    """seccomp, for what Landlock lets pass: other processes' limits, and sockets of other families than Unix.

    Raises: Refused.
    """
    known = SYSCALLS.get(os.uname().machine)
    if known is None:
        raise Refused(f"no rules for system calls on {os.uname().machine}")
    architecture, socket_number, limits_number = known
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    allow, absent, deny = 0x7FFF0000, 0x00050000 | errno.ENOSYS, 0x00050000 | errno.EACCES

    def only(number: int, first: int) -> list[tuple[int, int, int, int]]:
        """The call `number` is allowed with `first` as its first argument alone."""
        return [(equal, 0, 4, number), (load, 0, 0, 16), (equal, 0, 1, first), (give, 0, 0, allow), (give, 0, 0, deny)]

    # Code, how far to jump where it holds and where it does not (from the next instruction on), operand.
    program = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, architecture),
        (give, 0, 0, deny),
        (load, 0, 0, 0),  # the system call
        (at_least, 0, 1, 0x40000000),  # x32's numbers, by which the same calls are reached
        (give, 0, 0, deny),
        *only(limits_number, 0),  # 0: of the caller itself
    ]
    if not network:
        # io_uring could make sockets too.
        program += [(equal, 0, 1, IO_URING_SETUP), (give, 0, 0, absent), *only(socket_number, AF_UNIX)]
    program.append((give, 0, 0, allow))
    raw = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(raw)
    filters = struct.pack("HP", len(program), ctypes.addressof(buffer))
    if _libc().prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filters, 0, 0):
        raise Refused(f"seccomp: {os.strerror(ctypes.get_errno())}")


def limit(limits: dict[str, int]) -> None:
    for name, wanted in limits.items():
        which = getattr(resource, name, None)
        if which is not None:
            hard = resource.getrlimit(which)[1]
            allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(which, (allowed, allowed))
    # Where memory runs out the kernel should take the trial, and not the engine.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("800")


def replace(command: list[str]) -> None:
    """Become the command; returns only by leaving."""
    try:
        os.execvpe(command[0], command, os.environ)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(UNUSABLE)


def others() -> list[str]:
    """The names of the living processes of this PID namespace, but for this one."""
    names = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and entry != "1":
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as stat:
                name, _, rest = stat.read().partition("(")[2].rpartition(")")
                if rest.split()[0] not in "ZX":
                    names.append(name)
    return names


def serve(command: list[str]) -> int:
    """As process 1: run the command, reap what is orphaned, report, and end, and with it the whole namespace."""
    with contextlib.suppress(OSError):  # Where no runner listens, as in an audit.
        os.set_inheritable(REPORT, False)
    # Or the command could open this process's end of the report, or its memory; it gets its own dumpability by exec.
    _libc().prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    child = os.fork()
    if not child:
        replace(command)
    while True:
        pid, status = os.wait()
        if pid == child:
            break
    code = os.waitstatus_to_exitcode(status)
    # Helpers of the command are on their way out.
    deadline = time.monotonic() + LEAVING
    while others() and time.monotonic() < deadline:
        time.sleep(0.02)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
    with contextlib.suppress(OSError):
        os.write(REPORT, json.dumps({"exit_code": code, "left": others()[:32]}).encode())
    return code if code >= 0 else 128 - code


def main() -> None:
    task, command = json.loads(sys.argv[1]), sys.argv[2:]
    try:
        no_new_privileges()
        limit(task["limits"])
        if walls := task.get("landlock"):
            restrict(walls["read"], walls["list"], walls["write"], network=task["network"])
            refuse_calls(network=task["network"])
    except (Refused, OSError, ValueError) as error:
        print(f"the sandbox could not be built: {error}", file=sys.stderr, flush=True)
        os._exit(UNUSABLE)
    if os.getpid() == 1:
        os._exit(serve(command))
    replace(command)


if __name__ == "__main__":
    main()
