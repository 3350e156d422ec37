"""Calls of the system that no kernel of a learner may make, as a program for seccomp.

Those that reach what namespaces do not part (keyrings, sockets of virtual machines), that make
namespaces, that look into other processes, and doors of the system through which many have escaped.
libseccomp, which systemd and apt bring along, writes the program for this processor.
"""

import ctypes
import errno
import functools
import os
import socket

ALLOW, ERRNO = 0x7FFF0000, 0x00050000  # what seccomp.h calls these
NOT_EQUAL, EQUAL, GREATER, MASKED_EQUAL = 1, 4, 6, 7
SET_SECCOMP, FILTER = 22, 2  # prctl
# The network is the sandbox's own; ZeroMQ asks for its interfaces by routing's part of netlink.
FAMILIES = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}
NEW_NAMESPACES = (0x02000000, 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000,
                  0x40000000)  # fmt: skip
DENIED = """
add_key keyctl request_key
io_uring_setup io_uring_enter io_uring_register
shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl
unshare setns mount umount2 pivot_root chroot open_tree move_mount mount_setattr
fsopen fsconfig fsmount fspick
ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd
perf_event_open bpf userfaultfd fanotify_init
name_to_handle_at open_by_handle_at quotactl quotactl_fd acct swapon swapoff reboot
init_module finit_module delete_module kexec_load kexec_file_load
""".split()


class _Comparison(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("how", ctypes.c_int),
                ("first", ctypes.c_uint64), ("second", ctypes.c_uint64)]  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


@functools.cache
def program() -> bytes:
    """Return the filter, as the kernel takes it; raise OSError without libseccomp."""
    library = _library()
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ALLOW))
    try:
        _add_rules(library, context)
        with open(os.memfd_create("seccomp"), "w+b") as file:
            if library.seccomp_export_bpf(context, file.fileno()):
                raise OSError("libseccomp cannot write a filter for this processor")
            file.seek(0)
            return file.read()
    finally:
        library.seccomp_release(context)


def number(call: str) -> int:
    """Return the number of a call on this processor; negative when it has none."""
    return _library().seccomp_syscall_resolve_name(call.encode())


def _library() -> ctypes.CDLL:
    return ctypes.CDLL("libseccomp.so.2")


def _add_rules(library: ctypes.CDLL, context: ctypes.c_void_p) -> None:
    def deny(name: str, *comparisons: _Comparison, error: int = errno.EPERM) -> None:
        call = number(name)
        rules = (_Comparison * len(comparisons))(*comparisons)
        if call != -1:  # no such call on this processor, or in this libseccomp
            done = library.seccomp_rule_add_array(
                context, ERRNO | error, call, len(comparisons), rules
            )
            if done:
                raise OSError(-done, f"libseccomp cannot forbid {name}")

    for name in DENIED:
        deny(name)
    deny("clone3", error=errno.ENOSYS)  # its flags cannot be looked at; the C library uses clone
    for flag in NEW_NAMESPACES:
        deny("clone", _Comparison(0, MASKED_EQUAL, flag, flag))
    deny("socket", _Comparison(0, GREATER, max(FAMILIES), 0))
    netlink = _Comparison(0, EQUAL, socket.AF_NETLINK, 0)
    deny("socket", netlink, _Comparison(2, NOT_EQUAL, 0, 0))
    for family in {*range(max(FAMILIES))} - FAMILIES:
        deny("socket", _Comparison(0, EQUAL, family, 0))


@functools.cache
def file() -> str:
    """Return a path from which the program can be read, as long as this process runs."""
    handle = os.memfd_create("seccomp")
    os.write(handle, program())
    return f"/proc/{os.getpid()}/fd/{handle}"


def install(instructions: bytes) -> None:
    """Bind this process and all that it starts to a `program`, for ever."""
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    whole = _Program(len(instructions) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    if ctypes.CDLL(None, use_errno=True).prctl(SET_SECCOMP, FILTER, ctypes.byref(whole), 0, 0):
        raise OSError(ctypes.get_errno(), "the system takes no seccomp filter")
