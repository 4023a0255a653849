"""Mounts of a test's own: what it mounts, fills or takes away, no other process sees.

Root leaves for a mount namespace. Anybody else takes a user namespace with it, where the system allows that; then
there is no loop device, and all else is the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_ROOT = os.geteuid() == 0
UNSHARE = ("unshare", "--mount") if _ROOT else ("unshare", "--user", "--map-root-user", "--mount")


def can_mount() -> bool:
    """Whether a process may have mounts of its own here."""
    if shutil.which("unshare") is None:
        return False
    probe = "mount -t tmpfs none /mnt && umount /mnt"
    done = subprocess.run([*UNSHARE, "sh", "-c", probe], capture_output=True, check=False)
    return done.returncode == 0


# Where tests run by themselves nobody reads of what was left out: there they fail.
_EXCUSED = "CI" not in os.environ
needs_mount = pytest.mark.skipif(
    _EXCUSED and not can_mount(), reason="mounting a file system of its own is not permitted"
)
needs_loop = pytest.mark.skipif(
    not _ROOT or (_EXCUSED and not can_mount()), reason="only root may mount a file as a disk"
)


def run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


def mount_small(folder: Path, size: str) -> Path:
    """A disk of *size* at *folder*."""
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder)
    return folder


def fill(path: Path) -> None:
    """Somebody's file takes all that is left."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    with open(path, "ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 512)


def in_own_mounts(function: Callable[..., Any], *arguments: Any, seconds: float = 90.0) -> Any:
    """What *function*, which stands in a module, returns or raises in a process whose mounts nobody else sees. It is
    killed after *seconds*: threads of an agent that was not stopped would keep it for ever."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_leave) as pool:
        asked = pool.submit(function, *arguments)
        children = list(multiprocessing.active_children())
        try:
            return asked.result(seconds)
        except BaseException:
            for each in children:
                each.kill()
            raise


def _leave() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWNS if _ROOT else _CLONE_NEWNS | _CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")
    if not _ROOT:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    run("mount", "--make-rprivate", "/")
    os.chdir("/")
