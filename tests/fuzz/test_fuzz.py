"""A part of the fuzzing in every test run: the corpus, what once failed, and some mutations from a fixed seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicator.core.errors import ObjectCorrupt
from tests.fuzz import engine
from tests.fuzz.engine import CRASHERS, Failure, Form, Run, Target, TooLong, feed, save, saved, smallest
from tests.fuzz.targets import targets

INPUTS = 300
SEED = 1


@pytest.mark.parametrize("target", targets(), ids=str)
def test_any_bytes_are_read_or_refused(target: Target) -> None:
    """Of mutated inputs nothing comes out but errors of ours, in time; and the mutations do reach something."""
    run = Run(target, SEED)
    run.inputs(max(20, int(INPUTS * target.weight)))

    assert len(run.seen) > 1


@pytest.mark.parametrize("target", targets(), ids=str)
def test_what_the_program_wrote_is_read(target: Target) -> None:
    """The corpus is worth something only while most of it is accepted: what is refused at once leads nowhere."""
    found = [feed(target, data) for data in target.corpus]
    read = [each for each in found if isinstance(each, tuple) and each[0] == "read"]

    assert len(read) * 2 > len(found) > 0


@pytest.mark.parametrize("target", targets(), ids=str)
def test_what_once_failed_fails_no_more(target: Target) -> None:
    """Every input that a long run saved is fed again for ever."""
    for path in saved(target):
        feed(target, path.read_bytes())


def test_everything_saved_belongs_to_a_target() -> None:
    """A target that was renamed takes its inputs with it."""
    folders = {path.name for path in CRASHERS.iterdir() if path.is_dir()}

    assert folders <= {each.name for each in targets()}


# --- the engine can fail -------------------------------------------------------------------------------


def planted(data: bytes) -> bool:
    """A parser as they are written by people in a hurry."""
    if data[:4] != b"GOOD":
        raise ObjectCorrupt("not one of ours")
    count = data[4] if len(data) > 4 else 0
    if count > 200:
        return bool(data[10_000])
    return count > 3


CARELESS = Target("careless", planted, (b"GOOD\x02" + bytes(40),))


def test_a_careless_parser_is_found_out(tmp_path: Path) -> None:
    """The engine comes to the planted fault, shows the input, makes it small, and keeps it for later runs."""
    run = Run(CARELESS, SEED)
    with pytest.raises(Failure, match="careless fails with IndexError") as caught:
        run.inputs(5_000)
    small = smallest(caught.value)
    path = save(small, tmp_path)

    assert len(b"GOOD\xff") == len(small.data)
    assert [path] == saved(CARELESS, tmp_path)
    with pytest.raises(Failure):
        feed(CARELESS, path.read_bytes())


def test_one_seed_is_one_row_of_inputs() -> None:
    """The same seed gives the same inputs, another one others."""
    rows = []
    for seed in (1, 1, 2):
        seen: list[bytes] = []
        Run(Target("any", seen.append, (b"GOOD\x02" + bytes(40), b"{}"), Form.JSON), seed).inputs(50)
        rows.append(seen)

    assert rows[0] == rows[1] != rows[2]


def test_an_endless_parser_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processor time is what counts, and what catches every Exception on its way does not catch the end of it."""
    monkeypatch.setattr(engine, "CPU_SECONDS", 0.05)

    def endless(data: bytes) -> None:
        while True:
            try:
                sum(range(1000))
            except Exception:
                continue

    with pytest.raises(Failure) as caught:
        feed(Target("endless", endless, (b"",)), b"")

    assert isinstance(caught.value.cause, TooLong)


def test_an_assertion_of_a_target_is_a_failure() -> None:
    """What a target holds true is as good as what the program raises."""

    def wrong(data: bytes) -> None:
        assert data == b"never"

    with pytest.raises(Failure, match="AssertionError"):
        feed(Target("wrong", wrong, (b"",)), b"")
