"""The benchmarks' own arithmetic, and one small measurement from end to end."""

import math
from pathlib import Path

from benchmarks import databases, decode
from benchmarks.bench import bench
from benchmarks.questions.latency import delays, followed
from benchmarks.report import write_report
from benchmarks.rounds import Medians, Session
from benchmarks.setting import OURS
from benchmarks.stats import latencies, median, percentile
from replicator.demo.board import open_board
from replicator.demo.ledger import LEDGER


def test_percentiles_are_of_the_nearest_rank() -> None:
    """A percentile is one of the values; of none there is none."""
    assert [50, 95, 100] == [percentile(range(1, 101), each) for each in (50, 95, 99.5)]
    assert math.isnan(percentile([], 50))


def test_medians_leave_out_what_was_not_measured() -> None:
    """A round that failed does not count."""
    rows = [{"question": "q", "case": "c", "setting": "s", "round": n} for n in range(3)]
    rows[0]["x"], rows[1]["x"], rows[2]["error"] = 1.0, 3.0, "no"

    assert 2.0 == Medians(rows).get("q", "c", "s", "x")
    assert 2 == Medians(rows).count("q", "c", "s")
    assert ["q, c, s: no"] == Medians(rows).errors()
    assert 4.0 == median([4.0, math.nan])


def test_latencies_are_named_by_percentile() -> None:
    """Seconds in, milliseconds out; a p99 of fewer than a hundred would be the worst one."""
    assert {"p50_ms": 2.0, "max_ms": 3.0} == latencies([0.001, 0.002, 0.003])
    assert {"p50_ms", "p95_ms", "max_ms"} == set(latencies([0.001] * 99))
    assert {"p50_ms", "p95_ms", "p99_ms", "max_ms"} == set(latencies([0.001] * 100))


def test_a_commit_is_found_in_the_first_object_that_holds_it() -> None:
    """An object with a later commit counts for the ones before; none is earlier than its acknowledgement."""
    assert [0.5, 0.4, 0.0] == delays([(1, 100_000), (2, 200_000), (3, 900_000)], [(600_000, 2), (800_000, 3)])


def test_the_ledger_is_read_from_its_page(tmp_path: Path) -> None:
    """What the probe decodes from a raw page is what SQL says."""
    path = databases.template(tmp_path, 0)
    conn = open_board(path)
    for writer, counter in ((1, 70_000), (2, 1), (3, 5)):
        conn.execute(LEDGER, (writer, counter, 1_700_000_000_000_000))
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    root, size = databases.ledger_root(path)
    page = path.read_bytes()[(root - 1) * size : root * size]

    assert 70_006 == decode.ledger_sum(page) == databases.ledger_total(path)


def test_a_small_measurement_runs_from_end_to_end(tmp_path: Path) -> None:
    """Agent, writer, probe, proof by a restore, and a report with its goals."""
    session = Session(tmp_path, tmp_path / "x-raw.json", True, (1,), 1, {"cores": "some"})

    def measure(_case: str, setting: object) -> dict[str, object]:
        assert setting is OURS
        with bench(session, OURS) as here:
            here.start_probe()
            here.start_agent()
            return followed(here, ["--rate", 50, "--commits", 20])

    session.take_turns("latency", ["50"], [OURS], measure)

    assert 20 == session.rows[0]["commits"], session.rows
    assert f"| {OURS.name} | {session.rows[0]['p50_ms']:.1f} |" in write_report(session, tmp_path).read_text(
        "utf-8"
    )
