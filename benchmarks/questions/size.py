"""How many bytes and requests does an hour of work come to?"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import lz4.frame

from benchmarks import proc
from benchmarks.bench import Bench, bench
from benchmarks.questions import Column, Plot
from benchmarks.rounds import Row, Session
from benchmarks.setting import OURS, OURS_1S, ROOT, V5, Setting

TITLE = "Bytes sent and requests"
NOTES = (
    "What came into the store after the first full backup while the application made its commits, projected to "
    "an hour at that rate; then, in the first round, a minute without any commit. *Frames*: the log's frames of "
    "the same commits, each commit compressed with LZ4, read while the application ran; *smaller* is those bytes "
    "over the ones sent. What the rival's compactions every half minute bring is in it; what it deletes of it "
    "some minutes later is not taken off. Its first compaction (the database once more) was over before. Requests: "
    "objects that came, at $0.005 for a thousand puts of S3; listings and what is stored are not in the price."
)
COLUMNS = (
    Column("sent_mb_hour", "MB sent an hour"),
    Column("per_commit", "bytes sent a commit", 0),
    Column("frames_per_commit", "LZ4 frames a commit", 0, better=""),
    Column("smaller", "× smaller than LZ4 frames", better="more"),
    Column("objects_hour", "objects an hour", 0),
    Column("idle_objects_hour", "objects an idle hour", 0),
    Column("dollars_month", "$ a month for puts, busy", 2),
    Column("idle_dollars_month", "idle", 2),
)
PLOTS = (Plot("size", "per_commit", "bytes a commit", "Bytes sent for one commit"),)
PUT_DOLLARS = 0.005 / 1000
BOARD, ROWS = "Kanban-like, 20 commits/s", "random row updates, 20 commits/s"


def run(session: Session) -> None:
    settings = (OURS, OURS_1S, V5)
    for case, rounds in ((BOARD, None), (ROWS, 1)):
        session.take_turns("size", [case], settings, lambda *each: measure(session, *each), rounds=rounds)


def measure(session: Session, case: str, setting: Setting) -> Row:
    seconds, idle = session.pick((5, 2), (30, 60 if session.round == 0 and setting is not OURS_1S else 0))
    arguments = ["--rate", 20, "--seconds", seconds]
    if case == ROWS:
        arguments += ["--kind", "rows"]
    with bench(session, setting, session.pick(10, 100)) as here:
        here.start_probe()
        here.start_agent()
        here.settle(compacted=True)
        before = proc.stored(here.store)
        time.sleep(idle)
        rested = proc.stored(here.store)
        command = [sys.executable, "-m", "benchmarks.questions.size", str(here.wal)]
        frames = here.keep(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE))
        assert frames.stdout is not None
        frames.stdout.readline()  # it looks
        written = here.write(*arguments, log="acks.log")
        frames.terminate()
        row = figures(here, written["commits"], seconds, before, rested, int(frames.communicate()[0]))
        if idle:
            row["idle_objects_hour"] = (rested[0] - before[0]) * 3600 / idle
            row["idle_dollars_month"] = row["idle_objects_hour"] * 24 * 30 * PUT_DOLLARS
        here.prove()
        return row


def figures(
    here: Bench, commits: int, seconds: float, before: tuple[int, int], rested: tuple[int, int], frames: int
) -> Row:
    """The time is shorter than the five minutes after which the rival deletes what it has compacted."""
    here.wait_for_commit(here.acknowledged("acks.log")[-1][0])
    after = proc.stored(here.store)
    count, size = after[0] - rested[0], after[1] - rested[1]
    hour = 3600 / seconds
    return {
        "sent_mb_hour": size * hour / 1e6,
        "per_commit": size / commits,
        "frames_per_commit": frames / commits,
        "smaller": frames / size if size else 0.0,
        "objects_hour": count * hour,
        "dollars_month": count * hour * 24 * 30 * PUT_DOLLARS,
    }


def follow_frames(wal: Path) -> int:
    """Bytes of the log's commits, each as an LZ4 frame, until SIGTERM. A reader of the plain file, which a
    closing descriptor does no harm to: it locks nothing."""
    import signal

    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    total, place, salts, pending = 0, 32, b"", bytearray()
    first = True
    print("looks", flush=True)
    while True:
        last = bool(asked)
        if not wal.exists():
            if last:
                return total
            first = False
            time.sleep(0.02)
            continue
        with open(wal, "rb") as file:
            header = file.read(32)
            if len(header) == 32:
                if header[16:24] != salts:
                    salts, place = header[16:24], 32
                    pending.clear()
                step = 24 + struct.unpack_from(">I", header, 8)[0]
                if first:  # what lies there already was written before
                    place = max(32, _end(wal, step, salts))
                    first = False
                while True:
                    frame = os.pread(file.fileno(), step, place)
                    if len(frame) < step or frame[8:16] != salts:
                        break
                    place += step
                    pending += frame
                    if struct.unpack_from(">I", frame, 4)[0]:
                        total += len(lz4.frame.compress(bytes(pending)))
                        pending.clear()
        if last:
            return total
        time.sleep(0.02)


def _end(wal: Path, step: int, salts: bytes) -> int:
    data = wal.read_bytes()
    at = 32
    while at + step <= len(data) and data[at + 8 : at + 16] == salts:
        at += step
    return at


if __name__ == "__main__":
    print(follow_frames(Path(sys.argv[1])))
