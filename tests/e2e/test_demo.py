"""The demo tells its story to the end, and would say if a proof failed."""

from pathlib import Path

import pytest

from replicator.demo.story import Story, StoryFailed
from tests.e2e.command import leftovers, replicator


def test_s01_the_demo_is_told_to_its_end(tmp_path: Path) -> None:
    """Every proof holds, the figures are there, and nothing is left in the temporary folder."""
    done = replicator("demo", cwd=tmp_path, TMPDIR=str(tmp_path))

    assert done.code == 0, done.out + done.err
    assert done.out.count("proved:") >= 8
    for words in (
        "lag from acknowledged to stored",
        "every page equals the source of that moment",
        "times less",
    ):
        assert words in done.out
    assert [] == leftovers(tmp_path)


def test_the_demo_is_kept_where_it_was_asked_for(tmp_path: Path) -> None:
    """A folder with anything in it is refused; what a new one holds afterwards can be restored from."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    refused = replicator("demo", "--keep", "taken", cwd=tmp_path)

    assert (2, ["file"]) == (refused.code, leftovers(tmp_path / "taken"))
    assert "is not empty" in refused.err


def test_a_proof_that_fails_ends_the_story(tmp_path: Path) -> None:
    """A claim that does not hold is raised, and nothing is said to be proved."""
    told: list[str] = []
    with pytest.raises(StoryFailed, match="NOT proved: the moon is made of cheese"):
        Story(tmp_path, told.append)._prove(False, "the moon is made of cheese")

    assert [] == told
