"""A filter of system calls for the sandbox: no new namespaces, and no memory that the limits do not count.

In a user namespace of its own a program may mount file systems in memory. ``memfd_create`` makes files in memory. Both
would escape the limit of memory. The other calls reach large parts of the kernel that programs do not need.

The filter is a program for the kernel's packet filter (``linux/filter.h``, ``linux/seccomp.h``).
"""

from __future__ import annotations

import errno
import platform
import struct

_LOAD, _EQUAL, _LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Places in the kernel's ``struct seccomp_data``."""
_NEW_USER = 0x10000000
"""The flag of ``clone`` for a new user namespace."""
_OTHER_NUMBERS = 0x40000000
"""The first call of x32, a second set of numbers on x86-64."""

_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""The kernel's name of the architecture, and the column of `_CALLS`."""
_CALLS = {
    "ptrace": (101, 117),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "perf_event_open": (298, 241),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "memfd_create": (319, 279),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "clone3": (435, 435),  # its flags are in memory; the C library then uses clone
    "memfd_secret": (447, 447),
}
_CLONE = (56, 220)


def seccomp_filter() -> bytes:
    """The filter for this machine. On an architecture without a column in `_CALLS` it allows all calls."""
    if platform.machine() not in _MACHINES:
        return _packed([(_RETURN, 0, 0, _ALLOW)])
    architecture, column = _MACHINES[platform.machine()]
    numbers = [each[column] for each in _CALLS.values()]
    # each jump has two numbers of instructions to skip: if the test holds, and if not
    code: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, len(numbers) + 4, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_LEAST, len(numbers) + 2, 0, _OTHER_NUMBERS),
        *((_EQUAL, len(numbers) + 1 - place, 0, number) for place, number in enumerate(numbers)),
        (_EQUAL, 2, 0, _CLONE[column]),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL | errno.ENOSYS),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _NEW_USER),
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return _packed(code)


def _packed(code: list[tuple[int, int, int, int]]) -> bytes:
    return b"".join(struct.pack("=HBBI", *each) for each in code)
