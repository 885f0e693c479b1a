"""tcpdump on a node of a user namespace, where setgroups(2) is forbidden: run the real one, to which it succeeds.

As root tcpdump gives up its groups before it listens (`-Z`), and ends where it may not. There are none to give up here.
A seccomp filter answers that one system call with 0 (seccomp(2), SECCOMP_RET_ERRNO with errno 0). It needs Python 3 and
no package. running.py puts the real tcpdump's path into the last line.
"""

import ctypes
import os
import platform
import struct
import sys

_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "ppc64le": 81, "s390x": 206}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_RET_ALLOW, _RET_ERRNO = 0x7FFF0000, 0x00050000
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06


def answer_with_success(number: int) -> None:
    """Let system call `number` return 0 without being made, in this process and what it runs."""
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (_LOAD_WORD, 0, 0, 0),  # the system call's number
            (_JUMP_IF_EQUAL, 0, 1, number),
            (_RETURN, 0, 0, _RET_ERRNO),
            (_RETURN, 0, 0, _RET_ALLOW),
        )
    )
    code = ctypes.create_string_buffer(program)
    # struct sock_fprog: length, then a pointer at its natural alignment.
    header = ctypes.create_string_buffer(struct.pack("HP", len(program) // 8, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0):
        sys.exit(f"tcpdump: no seccomp filter: {os.strerror(ctypes.get_errno())}")


def main(real: str) -> None:
    if platform.machine() in _SETGROUPS:
        answer_with_success(_SETGROUPS[platform.machine()])
    os.execv(real, ["tcpdump", *sys.argv[1:]])


main("/usr/bin/tcpdump")
