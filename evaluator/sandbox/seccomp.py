"""The system call filter: a classic BPF program, assembled here.

The mount, network and process namespaces already take away what a program could reach. The filter
takes away the kernel's own surface besides: sockets, tracing, new namespaces, kernel keys,
io_uring and the like. A refused call returns EPERM (or ENOSYS where the C library has an older
way); only a call of a foreign architecture ends the program. Sources: linux/seccomp.h,
linux/filter.h, and the kernel's syscall tables.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import Final

from evaluator.sandbox.errors import SandboxUnavailableError

# linux/bpf_common.h, linux/filter.h
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_JUMP_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
# linux/seccomp.h
_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000
_ALLOW: Final = 0x7FFF0000
# offsets in struct seccomp_data
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_FIRST_ARGUMENT: Final = 16  # its low half on a little-endian machine

_X32_BIT: Final = 0x40000000
_CLONE_THREAD: Final = 0x00010000
_CLONE_NAMESPACES: Final = 0x7E020080  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET,TIME}

_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: (x86_64, aarch64); None where the architecture has no such call
_Numbers = dict[str, tuple[int | None, int | None]]

_REFUSED: Final[_Numbers] = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41),
    "mount": (165, 40), "umount2": (166, 39), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_setup": (206, 0), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "syslog": (103, 116),
    "settimeofday": (164, 170), "adjtimex": (159, 171), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "lookup_dcookie": (212, 18),
    "personality": (135, 92), "vhangup": (153, 58), "fanotify_init": (300, 262),
    "move_pages": (279, 239), "migrate_pages": (256, 238), "mbind": (237, 235),
    "set_mempolicy": (238, 237), "mknodat": (259, 33), "mknod": (133, None),
    "ioperm": (173, None), "iopl": (172, None), "modify_ldt": (154, None), "uselib": (134, None),
    "ustat": (136, None),
}  # fmt: skip
_FORK: Final[_Numbers] = {"fork": (57, None), "vfork": (58, None)}
_CLONE: Final = (56, 220)
_CLONE3: Final = 435


def _instruction(code: int, constant: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, constant)  # struct sock_filter


def _return_if_equal(number: int, action: int) -> bytes:
    return _instruction(_JUMP_EQUAL, number, 0, 1) + _instruction(_RETURN, action)


def assemble(*, processes: bool, machine: str | None = None) -> bytes:
    """Return the filter as an array of ``struct sock_filter`` (8 bytes each).

    ``processes`` says whether new processes may be started (compilers need that); threads always
    may. Raises SandboxUnavailableError on an architecture whose calls are not tabled.
    """
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise SandboxUnavailableError(
            f"sandbox: no system call filter for {machine}; run programs on one of {known}."
        )
    column = list(_ARCHITECTURES).index(machine)
    refuse = _ERRNO | errno.EPERM
    code = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":  # the same kernel entry with 32-bit pointers: other numbers
        code.append(_instruction(_JUMP_AT_LEAST, _X32_BIT, 0, 1))
        code.append(_instruction(_RETURN, _KILL))
    table = _REFUSED if processes else {**_REFUSED, **_FORK}
    numbers = {number for row in table.values() if (number := row[column]) is not None}
    code.extend(_return_if_equal(number, refuse) for number in sorted(numbers))
    # Its flags are behind a pointer, which a filter cannot follow: the C library falls back.
    code.append(_return_if_equal(_CLONE3, _ERRNO | errno.ENOSYS))
    code.append(_instruction(_JUMP_EQUAL, _CLONE[column], 1, 0))
    code.append(_instruction(_RETURN, _ALLOW))
    code.append(_instruction(_LOAD, _FIRST_ARGUMENT))
    code.append(_instruction(_JUMP_ANY_BIT, _CLONE_NAMESPACES, 0, 1))
    code.append(_instruction(_RETURN, refuse))
    if not processes:
        code.append(_instruction(_JUMP_ANY_BIT, _CLONE_THREAD, 1, 0))
        code.append(_instruction(_RETURN, refuse))
    code.append(_instruction(_RETURN, _ALLOW))
    return b"".join(code)
