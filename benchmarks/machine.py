"""What the figures were measured on, without names or paths of the machine."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path


def describe(scratch: Path) -> dict[str, str]:
    memory = _field(Path("/proc/meminfo"), "MemTotal")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": f"{len(os.sched_getaffinity(0))} × {_field(Path('/proc/cpuinfo'), 'model name')}",
        "memory": f"{int(memory.split()[0]) / 1e6:.0f} GB" if memory else "unknown",
        "kernel": f"{platform.system()} {platform.release()}",
        "disk": f"{file_system(scratch)}; write 4 KiB + fsync: {fsync_ms(scratch):.2f} ms (median of 50)",
        "Python": platform.python_version(),
        "SQLite of the writers": sqlite3.sqlite_version,
        "SQLite of the agent": _agent_sqlite(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def file_system(folder: Path) -> str:
    """Kind of the file system *folder* lies on, and whether its disk says that it spins."""
    best, kind, device = "", "unknown", ""
    real = str(folder.resolve())
    for line in Path("/proc/mounts").read_text().splitlines():
        source, mount, found, *_ = line.split()
        if (real == mount or real.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind, device = mount, found, os.path.basename(source)
    spins = Path(f"/sys/class/block/{device}/queue/rotational")
    if device.startswith("vd"):  # says that it rotates, whatever it lies on
        return f"{kind}, virtual disk"
    if spins.exists():
        kind += ", rotating disk" if spins.read_text().strip() == "1" else ", solid state"
    return kind


def fsync_ms(folder: Path) -> float:
    path = folder / "fsync.probe"
    took: list[float] = []
    with open(path, "wb", buffering=0) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    path.unlink()
    return sorted(took)[len(took) // 2] * 1000


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""


def _agent_sqlite() -> str:
    """Asked in a process of its own: two SQLite libraries do not belong in one."""
    code = "import apsw, json; print(json.dumps(apsw.sqlite_lib_version()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return str(json.loads(done.stdout))
