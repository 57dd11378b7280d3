"""The trusted program inside a sandbox: process 1 of it, the parent of everything untrusted.

It stands alone (the sandbox's own Python runs it, 3.8 or newer, standard library only). It reads one job from
descriptor ``control``, writes the job's files, runs its commands one after another, watches what all
processes together use, ends them, brings back files, and writes one report to ``report``. Nothing untrusted
holds either descriptor, can signal process 1 of its own namespace, or can look into it (it isn't dumpable).

It starts with every program, so it imports nothing that takes long (json alone costs as much as the rest).

A job is a frame: 8 bytes of length, then a marshalled dict, then the files' bytes one after another:
``{"commands": [{"argv", "env", "limits", "builtin", "quiet"}], "cwd", "files": [[path, size, mode]],
"outputs": [path], "output_bytes", "landlock", "beside", "uid", "stdio": [in, out, err, more...]}``. A report
is a frame likewise, but a Python literal, because its reader trusts nobody: ``{"ends": [{"status", "why",
"wall", "cpu", "memory", "largest", "tasks", "landlock", "started"}], "outputs": [[path, size or refusal]],
"captured": [size, ...]}`` and the files' bytes.

Where descriptors can't cross the wall (gVisor), ``captured`` gives what the commands read, and has what
they write kept in files and sent with the report: ``{"stdin": size, "said": size or null, "output": limit,
"heard": limit}``. Where there is no wall (``unconfined``), only its own descendants are counted and ended.
"""

from __future__ import annotations

import _ctypes  # ctypes itself costs half as much as the interpreter
import _signal as signal  # type: ignore[import-not-found]  # without the enumerations
import errno
import marshal
import os
import resource
import stat
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TICK = 0.01
PAGE = os.sysconf("SC_PAGE_SIZE")
CLOCK = os.sysconf("SC_CLK_TCK")
LIBC = _ctypes.dlopen(None, 2)  # type: ignore[arg-type]  # the program itself
SELF = os.getpid()
CONFINED = True
"""Whether all other processes in sight are of the job."""


def libc(name: str, *args: int | bytes | None) -> int:
    """Call a function of the C library with numbers and pointers."""
    told: int = _ctypes.call_function(_ctypes.dlsym(LIBC, name), args)
    return told


def read_exactly(fd: int, count: int) -> bytes:
    parts = []
    while count:
        part = os.read(fd, min(count, 1 << 20))
        if not part:
            raise EOFError("the job ended early")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def read_frame(fd: int) -> Any:
    (size,) = struct.unpack("<Q", read_exactly(fd, 8))
    return marshal.loads(read_exactly(fd, size))


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_frame(fd: int, value: Any, blobs: Any = ()) -> None:
    text = ascii(value).encode()
    write_all(fd, struct.pack("<Q", len(text)) + text)
    for blob in blobs:
        write_all(fd, blob)


# Files, in and out: one component at a time, no link is followed.


def open_folder(base: str, parts: list[str], make: bool = False, uid: int = -1) -> int:
    at = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        if make:
            try:
                os.mkdir(part, 0o755, dir_fd=at)
                os.chown(part, uid, uid, dir_fd=at, follow_symlinks=False)
            except FileExistsError:
                pass
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            inner = os.open(part, flags, dir_fd=at)
        finally:
            os.close(at)
        at = inner
    return at


def put(base: str, path: str, data: bytes, mode: int, uid: int) -> None:
    """Write a file for user ``uid``; -1: the supervisor's own."""
    *folders, name = path.split("/")
    at = open_folder(base, folders, make=True, uid=uid)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, mode, dir_fd=at)
    write_all(fd, data)
    os.fchown(fd, uid, uid)
    os.close(fd)
    os.close(at)


def fetch(base: str, path: str, room: int) -> bytes | str:
    """A file's bytes, or why it isn't brought back."""
    *folders, name = path.split("/")
    try:
        at = open_folder(base, folders)
    except OSError as error:
        return "it has no such folder" if error.errno == errno.ENOENT else "its folder is a link or no folder"
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    except OSError as error:
        return "it is a link" if error.errno == errno.ELOOP else os.strerror(error.errno or 0)
    finally:
        os.close(at)
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            return "it is no regular file"
        if about.st_nlink > 1:
            return "it has other names"
        if about.st_size > room:
            return "it has %d bytes, where %d are left" % (about.st_size, room)
        return read_exactly(fd, about.st_size)
    finally:
        os.close(fd)


def find(base: str, pattern: str) -> list[str]:
    """Names of regular files below a folder that end as the pattern ``*.END`` does; of one folder only."""
    if not pattern.startswith("*."):
        return [pattern]
    return sorted(name for name in os.listdir(base) if name.endswith(pattern[1:]))


# What all processes together use.


class Use:
    """Sampled while they run, completed by what the kernel counted of the dead."""

    def __init__(self, disk: int) -> None:
        self.tasks, self.full = 0, False
        self.names = 256 + 256 * disk
        """Files that it may have: each takes memory of the kernel's that no file system counts."""
        self.before = resource.getrusage(resource.RUSAGE_CHILDREN)

    def look(self) -> tuple[float, float, int, list[str]]:
        """-> seconds of CPU so far, MiB at present, tasks at present."""
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = reaped.ru_utime + reaped.ru_stime - self.before.ru_utime - self.before.ru_stime
        kib, tasks, found = 0, 0, []
        for name in mine():
            try:
                with open("/proc/%s/stat" % name, "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                with open("/proc/%s/status" % name, "rb") as file:
                    status = file.read()
            except OSError:
                continue
            if fields[0] != b"Z":
                tasks += int(fields[17])
                found.append(name)
            cpu += sum(map(int, fields[11:15])) / CLOCK
            kib += number(status, b"RssAnon:") + number(status, b"RssShmem:") or number(status, b"VmRSS:")
        for place in PLACES:
            about = os.statvfs(place)
            kib += (about.f_blocks - about.f_bfree) * about.f_frsize // 1024
            self.full = self.full or about.f_bfree == 0 or about.f_files - about.f_ffree > self.names
        self.tasks = max(self.tasks, tasks)
        return cpu, kib / 1024, tasks, found

    def shared(self, found: list[str]) -> float:
        """MiB with shared pages counted once; dearer to read; 0.0 where the kernel doesn't say (gVisor)."""
        kib, known = 0, False
        for name in found:
            try:
                with open("/proc/%s/smaps_rollup" % name, "rb") as file:
                    text = file.read()
            except OSError:
                continue
            known = True
            kib += number(text, b"Pss_Anon:") + number(text, b"Pss_Shmem:")
        if not known:
            return 0.0
        for place in PLACES:
            about = os.statvfs(place)
            kib += (about.f_blocks - about.f_bfree) * about.f_frsize // 1024
        return kib / 1024


PLACES = []  # type: list[str]
"""File systems that count as the job's memory: those in memory that it may write."""


def mine() -> list[str]:
    """Numbers of the job's processes."""
    names = [name for name in os.listdir("/proc") if name.isdigit() and int(name) != SELF]
    if CONFINED:
        return names
    parents = {}
    for name in names:
        try:
            with open("/proc/%s/stat" % name, "rb") as file:
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            continue
    found = {SELF}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return [str(pid) for pid in found - {SELF}]
        found |= more


def number(text: bytes, key: bytes) -> int:
    at = text.find(key)
    return 0 if at < 0 else int(text[at + len(key) :].split(None, 1)[0])


# Commands.


def landlock(writable: list[str]) -> bool:
    """Allow reading everywhere and writing below some folders; refuse TCP. -> Whether it holds."""
    version = libc("syscall", 444, None, 0, 1)
    if version < 1:
        return False
    read = 1 | 4 | 8  # execute, read file, read folder
    known = (1 << 13) - 1
    for least, bit in ((2, 13), (3, 14), (5, 15)):
        known |= (1 << bit) if version >= least else 0
    net = 3 if version >= 4 else 0
    attr = struct.pack("<QQ", known, net)[: 16 if version >= 4 else 8]
    ruleset = libc("syscall", 444, attr, len(attr), 0)
    if ruleset < 0:
        return False
    try:
        for place, allowed in [("/", read)] + [(one, known) for one in writable]:
            try:
                fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            if not os.path.isdir(place):
                allowed &= 1 | 2 | 4 | (1 << 14) | (1 << 15)
            told = libc("syscall", 445, ruleset, 1, struct.pack("<Qi", allowed, fd), 0)
            os.close(fd)
            if told:
                return False
        return bool(libc("syscall", 446, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


WRITABLE = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/shm", "/tmp")


def child(command: dict[str, Any], job: dict[str, Any], ready: int) -> None:
    """Become the untrusted program; never returns."""
    limits = command["limits"]
    os.setsid()
    stdio = list(job["stdio"])
    if command["quiet"] is not None:
        stdio[1] = stdio[2] = command["quiet"]
    high = max([*stdio, ready]) + 1
    for place, fd in enumerate([*stdio, ready]):  # first out of each other's way
        os.dup2(fd, high + place, inheritable=False)
    ready = high + len(stdio)
    for place in range(len(stdio)):
        os.dup2(high + place, place)
    for name in os.listdir("/proc/self/fd"):  # it gets what it is given and nothing else
        if int(name) >= len(stdio) and int(name) != ready:
            try:
                os.close(int(name))
            except OSError:  # that of the list itself
                pass
    os.chdir(job["cwd"])
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for what, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, limits["files"]),
        (resource.RLIMIT_CPU, int(limits["seconds"]) + 2),
        (resource.RLIMIT_FSIZE, (limits["disk"] + 1) << 20),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 1 << 16),
        (resource.RLIMIT_NPROC, limits["processes"] + job["beside"]),
    ):
        try:
            resource.setrlimit(what, (value, value))
        except ValueError:
            if job["captured"] is None:  # gVisor's kernel lets some of them alone; what is sampled holds
                raise
    if job["uid"] >= 0:  # where process 1's own user could reach into it
        os.setgroups([])
        os.setresgid(job["uid"], job["uid"], job["uid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])
    if limits["address"]:
        resource.setrlimit(resource.RLIMIT_AS, (limits["address"] << 20,) * 2)
    if job["landlock"]:
        job["landlock"] = landlock([job["cwd"], *WRITABLE])
    os.write(ready, b"L" if job["landlock"] else b"-")
    os.close(ready)
    if command.get("builtin") == "python-syntax":
        with open(command["argv"][0], "rb") as file:
            text = file.read()
        try:
            compile(text, command["argv"][0], "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            import traceback

            sys.stderr.write("".join(traceback.format_exception_only(type(error), error)))
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    try:
        os.execve(command["argv"][0], command["argv"], command["env"])
    except OSError as error:
        os.write(2, ("cannot start %s: %s\n" % (command["argv"][0], error)).encode())
    os._exit(127)


def carry_out(command: dict[str, Any], job: dict[str, Any], control: int) -> dict[str, Any]:
    """Run one command to its end or to a limit. -> What became of it."""
    limits = command["limits"]
    use = Use(limits["disk"])
    heard, ready = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(heard)
            child(command, job, ready)
        except BaseException as error:
            os.write(2, ("sandbox: %r\n" % (error,)).encode())
        finally:
            os._exit(126)
    os.close(ready)
    status, why = None, ""
    memory, tick = 0.0, TICK / 2
    while status is None:
        signal.sigtimedwait((signal.SIGCHLD,), tick)
        tick = TICK
        for gone, told in reap():
            if gone == pid:
                status = told
        if status is not None:
            break
        cpu, total, _, found = use.look()
        if total > limits["memory"]:
            total = use.shared(found) or total
        memory = max(memory, total)
        if total > limits["memory"]:
            why = "memory"
        elif cpu > limits["seconds"]:
            why = "cpu"
        elif time.monotonic() - began > limits["wall"]:
            why = "wall"
        elif use.full:
            why = "disk"
        elif stopped(control) or overflowing(job):
            why = "stopped"
        if why:
            break
    wall = time.monotonic() - began
    last = use.look()
    memory = max(memory, last[1] if last[1] <= limits["memory"] else 0.0)
    while True:  # process 1 reaches all but itself
        left = mine()
        for name in left:
            try:
                os.kill(int(name), signal.SIGKILL)
            except ProcessLookupError:
                pass
        for gone, told in reap(wait=True):
            if gone == pid and status is None:
                status = told
        if not left:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - use.before.ru_utime - use.before.ru_stime
    held = os.read(heard, 1)
    os.close(heard)
    if use.tasks >= limits["processes"] and why in ("", "cpu", "wall") and (why or status):
        why = "processes"  # it failed while it had all that it may have
    if not why and use.full:
        why = "disk"
    return {
        "status": status, "why": why, "wall": wall, "cpu": cpu, "memory": memory,
        "largest": after.ru_maxrss / 1024, "tasks": use.tasks, "landlock": held == b"L",
        "started": held != b"",
    }  # fmt: skip


def reap(wait: bool = False) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, 0 if wait else os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append((pid, status))


def stopped(control: int) -> bool:
    """Whether the parent outside asks for the end (or is gone)."""
    try:
        os.read(control, 1)
    except BlockingIOError:
        return False
    return True


def overflowing(job: dict[str, Any]) -> bool:
    """Whether a file that keeps what commands write is above its limit."""
    return any(os.fstat(fd).st_size > limit for fd, limit in job.get("kept", ()))


def scratch() -> int:
    """An open file without a name."""
    name = "/tmp/.scratch-%d" % SELF
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(name)
    return fd


def capture(job: dict[str, Any], control: int) -> None:
    """Give the commands files in place of pipes."""
    asked = job["captured"]
    given = scratch()
    write_all(given, read_exactly(control, asked["stdin"]))
    os.lseek(given, 0, os.SEEK_SET)
    job["stdio"] = [given, scratch(), scratch()]
    job["kept"] = [(fd, asked["output"]) for fd in job["stdio"][1:]]
    if asked["said"] is not None:
        said = scratch()
        write_all(said, read_exactly(control, asked["said"]))
        os.lseek(said, 0, os.SEEK_SET)
        job["stdio"] += [scratch(), said]
        job["kept"].append((job["stdio"][3], asked["heard"]))


def main(control: int, report: int) -> None:
    libc("prctl", 4, 0, 0, 0, 0)  # not dumpable: /proc/1 is closed to programs of the same user
    libc("prctl", 38, 1, 0, 0, 0)  # no new privileges, where the backend hasn't seen to it
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
    job = read_frame(control)
    cwd = job["cwd"]
    for path, size, mode in job["files"]:
        put(cwd, path, read_exactly(control, size), mode, job["uid"])
    if job["captured"] is not None:
        capture(job, control)
    global CONFINED
    if job["unconfined"]:
        CONFINED = False
        libc("prctl", 36, 1, 0, 0, 0)  # orphans of its descendants become its children
    else:
        PLACES.extend(sorted({cwd, "/tmp", "/dev/shm"}))
    os.set_blocking(control, False)
    ends = []
    for command in job["commands"]:
        command["quiet"] = scratch() if command["quiet"] else None
        ends.append(carry_out(command, job, control))
        if ends[-1]["status"] != 0 or ends[-1]["why"]:
            if command["quiet"] is not None:
                write_all(job["stdio"][2], os.pread(command["quiet"], 1 << 15, 0))
            break
    outputs, blobs, room = [], [], job["output_bytes"]
    for pattern in job["outputs"]:
        for path in find(cwd, pattern):
            got = fetch(cwd, path, room)
            if isinstance(got, bytes):
                room -= len(got)
                blobs.append(got)
                outputs.append([path, len(got)])
            else:
                outputs.append([path, got])
    kept = [os.pread(fd, limit + 1, 0) for fd, limit in job.get("kept", ())]
    told = {"ends": ends, "outputs": outputs, "captured": [len(one) for one in kept]}
    write_frame(report, told, blobs + kept)
    os._exit(0)  # nothing is left to be put in order


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
