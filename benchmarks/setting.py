"""The sides of every comparison: which program, set how, and how to start, ask and restore it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from benchmarks import decode, rival

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Remote:
    """A store in a bucket of an S3 server."""

    endpoint: str
    bucket: str
    prefix: str
    access_key: str
    secret_key: str

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def replica(self) -> dict[str, object]:
        """In the words of the rival's configuration."""
        place = {"type": "s3", "bucket": self.bucket, "path": self.prefix, "region": "us-east-1"}
        keys = {"access-key-id": self.access_key, "secret-access-key": self.secret_key}
        return {**place, **keys, "endpoint": self.endpoint, "force-path-style": True}

    @property
    def environ(self) -> dict[str, str]:
        """In those of ours."""
        keys = {"BACKUP_S3_ACCESS_KEY": self.access_key, "BACKUP_S3_SECRET_KEY": self.secret_key}
        return {**keys, "BACKUP_S3_ENDPOINT": self.endpoint, "BACKUP_S3_REGION": "us-east-1"}


@dataclass(frozen=True, slots=True)
class Setting:
    """*interval*: how often it ships, in the words of the program; None: its default."""

    name: str
    side: str
    interval: str | None = None

    @property
    def ours(self) -> bool:
        return self.side == "replicator"

    # --- running ---------------------------------------------------------------------------------------

    def command(
        self, pairs: list[tuple[Path, Path]], folder: Path, remote: Remote | None = None
    ) -> list[str]:
        """Replicates every database of *pairs* to the store beside it, or the only one to *remote*, by a
        configuration in *folder*."""
        if self.ours:
            lines = ["databases:\n"]
            lines += [f"- {{path: {db}, stores: [{remote.url if remote else store}], name: {db.stem}-{number}}}\n"
                      for number, (db, store) in enumerate(pairs)]  # fmt: skip
            if self.interval is not None:
                lines.append(f"ship_interval: {self.interval}\n")
            path = folder / "replicator.yml"
            path.write_text("".join(lines), "utf-8")
            return [sys.executable, "-m", "replicator", "replicate", "--config", str(path)]
        path = folder / "litestream.yml"
        places = [
            (db, remote.replica if remote else {"type": "file", "path": str(store)}) for db, store in pairs
        ]
        path.write_text(rival.configuration(self.side, places, self.interval), "utf-8")
        return [str(rival.install(self.side)), "replicate", "-config", str(path)]

    def start(
        self, pairs: list[tuple[Path, Path]], folder: Path, remote: Remote | None = None
    ) -> subprocess.Popen[bytes]:
        log: IO[bytes]
        with open(folder / "agent.log", "ab") as log:
            return subprocess.Popen(
                self.command(pairs, folder, remote),
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment(folder, remote),
            )

    def protects(self, store: Path) -> bool:
        """Whether a full copy of the database is in the store: from here on a restore works."""
        if self.ours:
            return next(store.glob("full/*/*/*/*.full"), None) is not None
        if self.side == "0.5.17":
            level_0 = ("ltx/0", "0000")  # in a folder, and in a bucket
            return any(any(store.glob(f"{each}/0000000000000001-*.ltx")) for each in level_0)
        snapshots = next(store.glob("generations/*/snapshots/*.snapshot.lz4"), None)
        return snapshots is not None and next(store.glob("generations/*/wal/*.wal.lz4"), None) is not None

    # --- looking into a store --------------------------------------------------------------------------

    def compacted(self, store: Path) -> bool:
        """Whether the work that follows a first full once is done: 0.5.17 stores the database again, twice."""
        wanted = ("ltx/1/*.ltx", "ltx/9/*.ltx") if self.side == "0.5.17" else ()
        return all(next(store.glob(each), None) is not None for each in wanted)

    def counter_in(
        self, store: Path, path: Path, ledger: tuple[int, int], bases: dict[str, int], resting: int
    ) -> int | None:
        """The newest commit of the writers that *path* holds; None of one that holds none.

        Ours are numbered within a generation. What to take off for the writers' counter is found at its first
        full, which is made while they rest at *resting*, and kept in *bases*.
        """
        if self.ours:
            found = decode.newest_txid(store, path)
            if found is None:
                return None
            generation, txid = found
            if path.suffix == ".full":
                bases.setdefault(generation, txid - resting)
            return txid - bases[generation] if generation in bases else None
        if path.suffix == ".ltx":
            return decode.ltx_counter(path, ledger[0])
        if path.name.endswith(".snapshot.lz4"):
            return decode.snapshot_counter(path, *ledger)
        if path.name.endswith(".wal.lz4"):
            return decode.wal_counter(path, *ledger)
        return None

    # --- restoring -------------------------------------------------------------------------------------

    def restore_command(
        self, store: Path, out: Path, *, micros: int | None = None, verify: str | None = None
    ) -> list[str]:
        """*verify*: `none`, `quick`, `full`, or None for what the program does by itself."""
        time = datetime.fromtimestamp(micros / 1e6, UTC) if micros is not None else None
        if self.ours:
            command = [sys.executable, "-m", "replicator", "restore", str(store), "-o", str(out)]
            command += ["--timestamp", time.isoformat().replace("+00:00", "Z")] if time else []
            return command + (["--verify", verify] if verify else [])
        command = [str(rival.install(self.side)), "restore", "-o", str(out)]
        command += ["-timestamp", time.isoformat().replace("+00:00", "Z")] if time else []
        if verify and self.side == "0.5.17":
            command += ["-integrity-check", verify]
        return [*command, f"file://{store}"]

    def restore(self, store: Path, out: Path, *, remote: Remote | None, folder: Path, database: Path) -> None:
        """As it is now; from *remote* by what ``command`` left in *folder*."""
        if remote is None:
            command = self.restore_command(store, out)
        elif self.ours:
            command = [sys.executable, "-m", "replicator", "restore", remote.url, "-o", str(out)]
        else:
            command = [str(rival.install(self.side)), "restore", "-config", str(folder / "litestream.yml")]
            command += ["-o", str(out), str(database)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, check=False, env=environment(folder, remote)
        )
        if done.returncode or not out.exists():
            raise RuntimeError(f"restore by {self.name} failed: {done.stderr.decode()[-500:]}")


def environment(folder: Path, remote: Remote | None = None) -> dict[str, str]:
    """Temporary files go to a folder of the run, where they are counted."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    keys = remote.environ if remote else {}
    # Where the machine names an authority of its own the rival does not start: its S3 client takes none.
    ours = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}
    return {**ours, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), **keys}


OURS = Setting("replicator, default (50 ms)", "replicator")
OURS_S3 = Setting("replicator, default (1 s)", "replicator")
OURS_1S = Setting("replicator, 1 s", "replicator", "1s")
OURS_0 = Setting("replicator, every commit", "replicator", "0")
V5 = Setting("litestream 0.5.17, default (1 s)", "0.5.17")
V5_FAST = Setting("litestream 0.5.17, 10 ms", "0.5.17", "10ms")
V3 = Setting("litestream 0.3.13, default (1 s)", "0.3.13")
V3_FAST = Setting("litestream 0.3.13, 10 ms", "0.3.13", "10ms")

EVERY = (OURS, OURS_1S, OURS_0, V5, V5_FAST, V3, V3_FAST)
DEFAULTS = (OURS, V5, V3)
NONE = Setting("no agent", "none")
