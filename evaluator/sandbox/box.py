"""Run one untrusted program: bubblewrap outside, the launcher inside, limits all round.

What is promised, and against whom, stands in docs/security.md.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from evaluator.sandbox import seccomp, store
from evaluator.sandbox.cgroups import Group, Groups
from evaluator.sandbox.errors import SandboxError, SandboxUnavailableError
from evaluator.sandbox.limits import MIB, End, Limits, RunResult

UNSAFE_VARIABLE: Final = "RETORT_UNSAFE_SANDBOX"
BOX: Final = "/box"  # where a run's read-only files stand inside
_LAUNCHER_SOURCE: Final = Path(__file__).with_name("launcher.c")
_NOBODY: Final = 65534
PAIR_BYTES: Final = 4096
_STDERR_BYTES: Final = 4096
_GRACE_SECONDS: Final = 30.0  # beyond the launcher's own wall limit: then it is itself stuck
_XCPU, _KILL, _XFSZ = 24, 9, 25
_ENVIRONMENT: Final = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - the sandbox's own
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the same verdict each time
    "PYTHONDONTWRITEBYTECODE": "1",
}
# Signs of an allocation that the address-space limit refused.
_REFUSED_ALLOCATION: Final = (b"std::bad_alloc", b"std::bad_array_new_length", b"MemoryError")


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. ``files`` are host files that appear, read-only, as /box/<name>; an argument
    that begins with /box/ names one of them.
    """

    arguments: tuple[str, ...]
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """One of two programs that talk with each other: an open file of PAIR_BYTES, the same for both,
    in which their launchers tell each other of CPU times, and which of the two it is (0 or 1).
    """

    descriptor: int
    side: int


def unsafe() -> bool:
    """Whether the user gave up isolation explicitly."""
    return os.environ.get(UNSAFE_VARIABLE) == "1"


def isolation() -> str:
    """How programs are isolated here, as shown beside every score."""
    if unsafe():
        return f"none ({UNSAFE_VARIABLE}=1)"
    return "bubblewrap + cgroup" if _groups().available else "bubblewrap"


@functools.cache
def _groups() -> Groups:
    return Groups()


@functools.cache
def _launcher_name() -> str:
    return f"launcher-{store.digest(_LAUNCHER_SOURCE.read_bytes())}"


def _launcher() -> Path:
    """The launcher, compiled once for each version of its source.

    Looked for each time: a cleaner of temporary files may have taken it.
    """
    source = _LAUNCHER_SOURCE
    name = _launcher_name()
    path = store.private_folder() / name
    if path.exists():
        return path
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("g++")
    if compiler is None:
        raise SandboxUnavailableError(
            "sandbox: there is no C compiler for its launcher; install the package g++."
        )
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "launcher"
        for extra in (["-static"], []):  # a static one starts sooner
            done = subprocess.run(
                [compiler, "-O2", "-x", "c", *extra, "-o", str(output), str(source)],
                env={"PATH": os.environ.get("PATH", os.defpath)}, capture_output=True, check=False,
            )  # fmt: skip
            if done.returncode == 0:
                return store.keep(name, output.read_bytes(), executable=True)
    message = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    raise SandboxUnavailableError(
        f"sandbox: its launcher does not compile ({' '.join(message)}); install the package g++."
    )


@functools.cache
def _filter(processes: bool) -> tuple[str, bytes]:
    code = seccomp.assemble(processes=processes)
    return f"seccomp-{store.digest(code)}", code


def _filter_file(processes: bool) -> Path:
    return store.keep(*_filter(processes))


@functools.cache
def system_mounts() -> tuple[str, ...]:
    """Arguments that show the system, read-only, and nothing of the machine's own."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib32", "lib64", "libx32", "sbin"):
        path = Path("/", name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    for name in ("/etc/ld.so.cache", "/etc/alternatives"):
        if Path(name).exists():
            arguments += ["--ro-bind", name, name]
    return tuple(arguments)


@functools.cache
def check_available() -> None:
    """Raise SandboxUnavailableError, saying what to install, where programs cannot be isolated."""
    if unsafe():
        return
    if shutil.which("bwrap") is None:
        raise SandboxUnavailableError(
            "sandbox: untrusted programs need bubblewrap; install the package bubblewrap "
            f"(or set {UNSAFE_VARIABLE}=1 inside a container of your own)."
        )
    try:
        result = _execute(Command(("/usr/bin/true",)), Limits(cpu_seconds=5), b"", file_mode=False)
    except SandboxError as error:
        raise SandboxUnavailableError(
            f"sandbox: bubblewrap cannot isolate programs on this machine: {error} It needs "
            "unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1), or set "
            f"{UNSAFE_VARIABLE}=1 inside a container of your own."
        ) from None
    if not result.succeeded:
        raise SandboxUnavailableError(
            f"sandbox: a program that does nothing ended with {result.end} {result.exit_code}."
        )


def _bubblewrap(command: Command, limits: Limits) -> list[str]:
    arguments = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
        "--unshare-net", "--unshare-cgroup-try", "--hostname", "sandbox",
        "--uid", str(_NOBODY), "--gid", str(_NOBODY),
        "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL",
        *system_mounts(),
        "--dev", "/dev", "--remount-ro", "/dev",
        "--size", str(limits.tmp_bytes), "--tmpfs", "/tmp",  # noqa: S108
        "--dir", BOX,
    ]  # fmt: skip
    for name, path in command.files.items():
        arguments += ["--ro-bind", str(path), f"{BOX}/{name}"]
    arguments += ["--ro-bind", str(_launcher()), "/.launcher", "--remount-ro", "/"]
    for name, value in _ENVIRONMENT.items():
        arguments += ["--setenv", name, value]
    return [*arguments, "--chdir", "/tmp", "--", "/.launcher"]  # noqa: S108


def _address_space(limits: Limits, *, grouped: bool) -> int:
    """Room for what is reserved and never touched; the resident memory decides (MLE).

    Where a control group guards the machine, an allocation far beyond the limit is let through,
    and the program ends when it touches it, as on Codeforces.
    """
    return (8 if grouped else 2) * limits.memory_bytes + (4096 if grouped else 512) * MIB


def _inner(
    command: Command, limits: Limits, descriptors: tuple[int, int], *, grouped: bool, files: bool,
    pair: Pair | None,
) -> list[str]:  # fmt: skip
    settings = {
        "report": descriptors[0],
        "filter": descriptors[1],
        "cpu_ms": round(limits.cpu_seconds * 1000),
        "idle_ms": 0 if limits.processes_allowed else round(limits.idle_limit_seconds * 1000),
        "wall_ms": round(limits.wall_limit_seconds * 1000),
        "memory": _address_space(limits, grouped=grouped),
        "processes": limits.threads,
        "files": limits.open_files,
        "file_bytes": limits.output_bytes,
        "stack": limits.memory_bytes,
        "file_mode": int(files),
    }
    if pair is not None:
        settings |= {"pair": pair.descriptor, "side": pair.side}
    return ["run", *(f"{name}={value}" for name, value in settings.items()), "--"]


def _unsafe_line(command: Command, home: str) -> tuple[list[str], list[str]]:
    """Without isolation: the launcher itself, and the arguments with the host's own paths."""
    places = {f"{BOX}/{name}": str(path) for name, path in command.files.items()}
    environment = {**_ENVIRONMENT, "HOME": home}
    outer = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in environment.items())]
    return [*outer, str(_launcher())], [places.get(word, word) for word in command.arguments]


@contextmanager
def start(
    command: Command,
    limits: Limits,
    *,
    stdin: int | IO[bytes],
    stdout: int | IO[bytes],
    file_mode: bool = False,
    pair: Pair | None = None,
) -> Iterator[Run]:
    """Start a program; leaving the context ends it and everything that it started.

    With ``file_mode`` the standard input appears as input.txt in the working folder, and the
    file output.txt of the same folder becomes the output. With a ``pair`` a program that waits
    while its partner computes is not idle.
    """
    with ExitStack() as stack:
        group = None
        home = "/"
        if unsafe():
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="retort-unsafe-"))
            if os.getuid() == 0:
                os.chown(home, _NOBODY, _NOBODY)
        elif (group := _groups().take()) is not None:
            stack.callback(_groups().give_back, group)
        kills = 0 if group is None else group.limit(limits.memory_bytes, limits.threads)
        stderr = stack.enter_context(tempfile.TemporaryFile())
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        with ExitStack() as ours:  # what the child inherits
            ours.callback(os.close, writer)
            code = os.open(_filter_file(limits.processes_allowed), os.O_RDONLY)
            ours.callback(os.close, code)
            if unsafe():
                outer, arguments = _unsafe_line(command, home)
            else:
                outer, arguments = _bubblewrap(command, limits), list(command.arguments)
            user = _NOBODY if os.getuid() == 0 else -1
            line = [str(_launcher()), "enter", str(user), str(user),
                    *(group.procs if group is not None else []), "--", *outer,
                    *_inner(command, limits, (writer, code), grouped=group is not None,
                            files=file_mode, pair=pair), *arguments]  # fmt: skip
            process = subprocess.Popen(
                line, stdin=stdin, stdout=stdout, stderr=stderr, env={}, cwd=home,
                pass_fds=(writer, code, *([] if pair is None else [pair.descriptor])),
                start_new_session=True,
            )  # fmt: skip
        run = Run(process, reader, stderr, limits, group, kills)
        stack.callback(run.kill)
        yield run


@dataclass(slots=True)
class Run:
    """A program that was started."""

    process: subprocess.Popen[bytes]
    reader: int
    stderr: IO[bytes]
    limits: Limits
    group: Group | None
    kills: int  # of the group, before the run

    def kill(self) -> None:
        """End it with everything that it started; harmless where it has ended."""
        if self.process.poll() is None:
            if unsafe():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, _KILL)
            self.process.kill()
            self.process.wait()

    def wait(self, stdout: IO[bytes] | None = None) -> RunResult:
        """Wait for its end and tell how it came; ``stdout`` is read where it is a file.

        Raises SandboxError where the program could not be run at all.
        """
        # Popen.wait with a timeout sleeps up to 50 ms at a time; the report's pipe wakes at once.
        patience = self.limits.wall_limit_seconds + _GRACE_SECONDS
        ready, _, _ = select.select([self.reader], [], [], patience)
        if not ready:
            self.kill()
            raise SandboxError("sandbox: the launcher did not end; it was killed.")
        report = os.read(self.reader, 4096).decode(errors="replace").split()
        self.process.wait()
        self.stderr.seek(0, os.SEEK_END)
        written = self.stderr.tell()
        self.stderr.seek(max(0, written - _STDERR_BYTES))
        stderr = self.stderr.read(_STDERR_BYTES)
        output = b""
        if stdout is not None:
            stdout.seek(0)
            output = stdout.read(self.limits.output_bytes)
        full = max(written, len(output)) >= self.limits.output_bytes
        starved = self.group is not None and self.group.kills() > self.kills
        if report[:1] != ["ended"]:
            if starved:  # the kernel chose the launcher
                peak = self.limits.memory_bytes
                return RunResult(End.MEMORY, 137, 0.0, 0.0, peak, output, stderr, 0.0)
            last = stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise SandboxError(
                f"sandbox: the program could not be started ({' '.join(report[1:] or last)})."
            )
        return self._judge(report[1:], output, stderr, full=full, starved=starved)

    def _judge(
        self, report: list[str], output: bytes, stderr: bytes, *, full: bool, starved: bool
    ) -> RunResult:
        reason, status = report[0], int(report[1])
        cpu_us, peak_kib, wall_us, end_ns = (int(word) for word in report[2:])
        code = os.waitstatus_to_exitcode(status)
        signal = -code if code < 0 else 0
        peak = peak_kib * 1024
        refused = code != 0 and any(sign in stderr for sign in _REFUSED_ALLOCATION)
        if starved or peak > self.limits.memory_bytes:
            end, peak = End.MEMORY, max(peak, self.limits.memory_bytes)
        elif reason == "cpu" or signal == _XCPU or cpu_us > self.limits.cpu_seconds * 1e6:
            end = End.CPU
        elif signal == _XFSZ or full:
            end = End.OUTPUT
        elif reason in ("idle", "wall"):
            end = End.IDLE
        elif refused:
            end = End.MEMORY
        else:
            end = End.SIGNAL if signal else End.EXIT
        return RunResult(
            end=end,
            exit_code=128 + signal if signal else code,
            cpu_seconds=cpu_us / 1e6,
            wall_seconds=wall_us / 1e6,
            memory_bytes=peak,
            stdout=output,
            stderr=stderr,
            ended_at=end_ns / 1e9,
        )


def execute(
    command: Command, limits: Limits, stdin: bytes = b"", *, file_mode: bool = False
) -> RunResult:
    """Run a program on an input and return what became of it.

    Raises SandboxError where it could not be run: never silently without isolation.
    """
    check_available()
    return _execute(command, limits, stdin, file_mode=file_mode)


def _execute(command: Command, limits: Limits, stdin: bytes, *, file_mode: bool) -> RunResult:
    # Files, not pipes: nobody has to feed or drain them in time, and nothing is kept in memory.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.flush()
        # The program gets a description of its own that cannot write: its input stays as it is.
        reader = os.open(f"/proc/self/fd/{source.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with start(command, limits, stdin=reader, stdout=output, file_mode=file_mode) as run:
                return run.wait(output)
        finally:
            os.close(reader)
