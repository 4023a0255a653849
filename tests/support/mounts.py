"""Mounts of a test's own: what it mounts, fills or takes away, no other process sees."""

import ctypes
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

UNSHARE = ("unshare", "--mount")
_CLONE_NEWNS = 0x20000


def can_mount() -> bool:
    """Whether a process may have mounts of its own here."""
    if shutil.which("unshare") is None:
        return False
    probe = "mount -t tmpfs none /mnt && umount /mnt"
    done = subprocess.run([*UNSHARE, "sh", "-c", probe], capture_output=True, check=False)
    return done.returncode == 0


needs_mount = pytest.mark.skipif(not can_mount(), reason="mounting a file system of its own is not permitted")


def run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


def in_own_mounts(function: Callable[..., Any], *arguments: Any) -> Any:
    """What *function*, which stands in a module, returns or raises in a process whose mounts nobody else sees."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_leave) as pool:
        return pool.submit(function, *arguments).result()


def _leave() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    run("mount", "--make-rprivate", "/")
    os.chdir("/")
