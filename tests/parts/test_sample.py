"""`verify` of a sample: it says so, counts what it reads, and reads what all lie on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.cli.entry import run
from replicator.core.names import LogName, SegmentName, parse_name
from replicator.store import connect
from replicator.store.sealed import SealedStore
from replicator.verify import LEVELS, Limits, Report, verify
from tests.support.clinic import SOURCES, Clinic
from tests.support.memory_store import MemoryStore


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    made = Clinic(tmp_path, SOURCES["plain"])
    yield made
    made.close()


def look(clinic: Clinic, level: str, sample: float) -> Report:
    return verify(SealedStore(clinic.inner, clinic.keys), level, Limits(sample), restore=lambda *_: None)


def size(clinic: Clinic, *kinds: type) -> int:
    names = clinic.objects.names
    return sum(len(clinic.objects.get(name)) for name in names if isinstance(parse_name(name), kinds))


def test_a_sample_is_told_of_what_was_chosen(clinic: Clinic) -> None:
    """How many of how many, of each thing that the level looks into; the last of each always."""
    every = len(clinic.objects.names)
    found = [look(clinic, level, 1e-9).sampled for level in LEVELS]

    assert [None, (1, every), (1, every), (1, every)] == [each and each.objects for each in found]
    assert [None, None, (1, 4), (1, 4)] == [each and each.backups for each in found]
    assert [None, None, None, (1, 1)] == [each and each.generations for each in found]
    assert [None] * 4 == [look(clinic, level, 1.0).sampled for level in LEVELS]


def test_all_that_is_read_is_counted(clinic: Clinic) -> None:
    """Of a sample at `content` more than a sample: every log and segment; of the whole more than once."""
    carriers = size(clinic, LogName, SegmentName)

    assert carriers < look(clinic, "content", 1e-9).bytes_read
    assert look(clinic, "checksums", 1e-9).bytes_read < look(clinic, "checksums", 1.0).bytes_read
    assert size(clinic, object) < look(clinic, "content", 1.0).bytes_read


def test_of_a_sample_every_log_and_segment_is_read(clinic: Clinic) -> None:
    """Each is what the next one chains to."""
    for name in (clinic.names(LogName)[0], clinic.names(SegmentName)[0]):
        clinic.cut(name)

    assert 2 == len(look(clinic, "content", 1e-9).found)
    assert [] == look(clinic, "checksums", 1e-9).found


@pytest.mark.parametrize("json", [False, True])
def test_a_sample_says_so(
    clinic: Clinic, tmp_path: Path, capsys: pytest.CaptureFixture[str], json: bool
) -> None:
    """In text and in JSON: that nothing is hurt is said of the sample alone."""
    store = connect(str(tmp_path / "copy"))
    assert isinstance(clinic.objects, MemoryStore)
    for name in clinic.objects.names:
        store.put(name, clinic.objects.get(name))
    every = len(clinic.objects.names)
    capsys.readouterr()
    code = run(["verify", str(tmp_path / "copy"), "--sample", "0.0001%", *(["--json"] if json else [])])
    out = capsys.readouterr().out

    assert 0 == code
    if json:
        assert '"sampled": {"objects": 1, "backups": 1, "generations": null}' in out
    else:
        assert out.startswith(f"a sample of 1 of {every} objects, 1 of 4 backups chunk by chunk of ")
        assert out.endswith(": nothing in it is hurt\n")
