"""The first full backup by size of the database, what commits take then, and the second one after a little changed."""

from __future__ import annotations

import time

from benchmarks import proc
from benchmarks.bench import Bench, bench, run_measured
from benchmarks.questions import Column, Plot
from benchmarks.questions.latency import delays
from benchmarks.rounds import Row, Session
from benchmarks.setting import DEFAULTS, Setting
from benchmarks.stats import latencies

TITLE = "Full backup, and how each grows with the database"
NOTES = (
    "From the start of the agent on a database it never saw until a restore would work; CPU and bytes until it "
    "came to rest or 80 s were over (the rival stores the database twice more then, as its first compaction "
    "and snapshot). Local disk: the most that the agent kept beside the database and in temporary files. Then ten "
    "seconds of 100 commits/s. All but the time is of the first round; above 1 GB nothing is restored to prove it. "
    "*Second*: another full after 1 % of the pages changed; the rival has a verb for that, `-once "
    "-force-snapshot`, in 0.5.17 only. Ours has no verb for it yet: the application writes and closes while the "
    "agent is away, which makes one."
)
COLUMNS = (
    Column("seconds", "s", 2),
    Column("rest_seconds", "until at rest s"),
    Column("cpu_seconds", "CPU s"),
    Column("peak_rss_mb", "peak RSS MB", 0),
    Column("local_mb", "local disk MB", 0),
    Column("stored_mb", "stored MB", 0),
    Column("rest_stored_mb", "stored at rest MB", 0),
    Column("p50_ms", "commits then, p50 ms"),
    Column("p99_ms", "p99 ms"),
)
PLOTS = (
    Plot("full-time", "seconds", "s", "First full by size of the database in MB", prefix="first, MB: "),
    Plot("full-bytes", "stored_mb", "MB stored", "Bytes of the first full", prefix="first, MB: "),
    Plot("full-rss", "peak_rss_mb", "MB", "Peak memory by size of the database in MB", prefix="first, MB: "),
)
FIRST, SECOND = "first, MB: ", "second after 1 % changed, MB: "
LARGEST_IN_TURNS = 1000
# To restore a larger one, on all sides, and to compare every row takes longer than all that is measured.
PROVED_BYTES_MAX = 1 << 30


def run(session: Session) -> None:
    """Larger databases take minutes each: one round."""
    both = DEFAULTS[:2]

    def measure_first(case: str, setting: Setting) -> Row:
        with bench(session, setting, int(case.removeprefix(FIRST))) as here:
            return first(here, session.pick(2, 10), whole=session.round == 0)

    small = [size for size in session.sizes_mb if size <= LARGEST_IN_TURNS]
    large = [size for size in session.sizes_mb if size > LARGEST_IN_TURNS]
    session.take_turns("full", [FIRST + str(size) for size in small], both, measure_first)
    session.take_turns("full", [FIRST + str(size) for size in large], both, measure_first, rounds=1)
    cases = [SECOND + str(size) for size in small[-1:]]
    session.take_turns("full", cases, both, lambda *each: measure_second(session, *each), rounds=1)


def first(here: Bench, seconds: int, *, whole: bool) -> Row:
    """*whole*: with all that takes minutes, once; else the time alone."""
    if not whole:
        return {"seconds": here.start_agent()}
    here.start_probe()
    began = time.monotonic()
    with proc.Sampler(0.2, local=here.local_bytes) as sampler:
        took = here.start_agent()
        stored = proc.stored(here.store)[1]
        here.settle(compacted=True)
        rest = time.monotonic() - began
        sampler.look()
    row: Row = {
        "seconds": took,
        "rest_seconds": rest,
        "cpu_seconds": proc.cpu_seconds(here.pid),
        "peak_rss_mb": proc.rss_mb(here.pid, peak=True),
        "local_mb": sampler.peak["local"] / 1e6,
        "stored_mb": stored / 1e6,
        "rest_stored_mb": proc.stored(here.store)[1] / 1e6,
    }
    here.write("--rate", 100, "--seconds", seconds, log="acks.log")
    acks = here.acknowledged("acks.log")
    here.wait_for_commit(acks[-1][0])
    row |= latencies(delays(acks, here.seen()))
    if here.db.stat().st_size < PROVED_BYTES_MAX:
        here.prove()
    return row


def measure_second(session: Session, case: str, setting: Setting) -> Row:
    megabytes = int(case.removeprefix(SECOND))
    # Rows lie some eight on a page, so one row in eight hundred touches about one page in a hundred.
    changes = ("--kind", "rows", "--batch", 100, "--commits", max(1, megabytes * 256 // 10_000))
    with bench(session, setting, megabytes) as here:
        here.start_agent()
        here.settle(compacted=True)
        if not setting.ours:
            here.write(*changes)
            time.sleep(3.0)
            here.stop_agent()
            before = proc.stored(here.store)[1]
            once = [*setting.command([(here.db, here.store)], here.folder), "-once", "-force-snapshot"]
            row: Row = dict(run_measured(once, here.folder))
        else:
            here.stop_agent()
            here.write(*changes)
            before = proc.stored(here.store)[1]
            began = time.monotonic()
            here.start_agent_again(fulls=2)
            row = {"seconds": time.monotonic() - began, "cpu_seconds": proc.cpu_seconds(here.pid)}
            row["peak_rss_mb"] = proc.rss_mb(here.pid, peak=True)
        row["stored_mb"] = (proc.stored(here.store)[1] - before) / 1e6
        here.prove()
        return row
