"""python -m benchmarks: measure, write the report, the raw figures and the plots."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine, rival
from benchmarks.report import write_report
from benchmarks.rounds import Row, Session

HERE = Path(__file__).resolve().parent
QUESTIONS = ("latency", "throughput", "cost", "full", "restore", "size", "restart", "s3", "policy")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    report = merge(options.report, options.results) if options.report else _measure(options)
    path = write_report(report, options.results)
    print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name)
    if options.publish:
        publish(report, path, HERE.parent / "docs")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of small cases, some minutes")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--sizes", metavar="MB,MB…", help="sizes of the first full; 10,100,1000,4000,10000")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement; 3, with --quick 1")
    parser.add_argument("--scratch", type=Path, default=HERE / "scratch", help="where databases are made")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument(
        "--report", type=Path, nargs="+", metavar="RAW", help="only the report, of raw figures together"
    )
    parser.add_argument("--publish", action="store_true", help="copy the report to docs/BENCHMARKS.md")
    return parser.parse_args(arguments)


def _measure(options: argparse.Namespace) -> Session:
    for version in rival.VERSIONS:
        rival.install(version)
    options.scratch.mkdir(parents=True, exist_ok=True)
    sizes = options.sizes or ("20" if options.quick else "10,100,1000,4000,10000")
    stem = datetime.now(UTC).strftime("%Y-%m-%d-%H%M")
    session = Session(
        scratch=options.scratch.resolve(),
        raw=options.results / f"{stem}{'-quick' if options.quick else ''}-raw.json",
        quick=options.quick,
        sizes_mb=tuple(int(size) for size in sizes.split(",")),
        rounds=options.rounds or (1 if options.quick else 3),
        machine=machine.describe(options.scratch),
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # agents and writers end with us
    try:
        for name in options.only:
            began = time.monotonic()
            importlib.import_module(f"benchmarks.questions.{name}").run(session)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; the report is of what was measured", file=sys.stderr)
    finally:
        session.save()
        shutil.rmtree(options.scratch / "run", ignore_errors=True)
    return session


def merge(paths: list[Path], results: Path) -> Session:
    """Several files are one session: questions may be measured one by one, on different days. Of what was
    measured twice the later file counts."""
    found = [json.loads(path.read_text("utf-8")) for path in paths]
    if len({each["quick"] for each in found}) > 1:
        raise SystemExit("quick and full figures do not belong in one report")
    rows: dict[tuple[str, str, str], list[Row]] = {}
    for each in found:
        mine: dict[tuple[str, str, str], list[Row]] = {}
        for row in each["rows"]:
            mine.setdefault((row["question"], row["case"], row["setting"]), []).append(row)
        rows |= mine
    machines = [each["machine"] for each in found]
    said = {key: spread([str(each.get(key, "")) for each in machines]) for key in machines[-1]}
    dates = sorted({each["date"] for each in machines})
    said["date"] = " to ".join([dates[0], dates[-1]]) if len(dates) > 1 else dates[0]
    raw = results / f"{machines[-1]['date'][:10]}-raw.json" if len(found) > 1 else paths[0]
    together = [row for each in rows.values() for row in each]
    session = Session(Path(), raw, found[-1]["quick"], (), found[-1]["rounds"], said, together)
    if len(found) > 1:
        session.save()
    return session


def spread(texts: list[str]) -> str:
    """What was said of the machine each time, told once; where only a figure differs, from the least to the most."""
    figure = re.compile(r"\d+\.\d+")
    found = [figure.findall(text) for text in texts]
    shapes = {figure.sub("#", text) for text in texts}
    if len(set(texts)) == 1 or len(shapes) > 1 or any(len(each) != 1 for each in found):
        return " / ".join(dict.fromkeys(texts))
    figures = sorted((each[0] for each in found), key=float)
    return shapes.pop().replace("#", f"{figures[0]} to {figures[-1]}")


def publish(session: Session, path: Path, docs: Path) -> None:
    """The report at *path*, as docs/BENCHMARKS.md; its plots stay where they are."""
    if session.quick:
        raise SystemExit("a quick run is not published")
    plots = os.path.relpath(path.parent, docs)
    text = re.sub(r"(!\[[^]]*\]\()", rf"\g<1>{plots}/", path.read_text("utf-8"))
    (docs / "BENCHMARKS.md").write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
