"""What a database stands for where a store is asked for: its own stores, all of them, and nobody else's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.command import replicator, sql
from tests.support import oracle

KEY = {"BACKUP_ENCRYPTION_KEY": "3f9a1c7be2d04856a7c3f1908b6d24e5917af03cd85b62e41c0f7da93be86145"}


def replicated(folder: Path, name: str, *stores: str, **environ: str) -> None:
    sql(
        folder / f"{name}.db",
        "PRAGMA journal_mode=WAL",
        "CREATE TABLE t(x)",
        f"INSERT INTO t VALUES('{name}')",
    )
    done = replicator("replicate", f"{name}.db", *stores, "--once", cwd=folder, **environ)
    assert 0 == done.code, done.err


@pytest.mark.parametrize("environ", [{}, KEY], ids=["plain", "encrypted"])
def test_stores_that_changed_places_are_not_taken_for_each_other(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    """Nothing of the one is given for the other, also where both open with the same key."""
    for name in ("one", "two"):
        replicated(tmp_path, name, f"{name}.store", **environ)
    for old, new in (("one", "other"), ("two", "one"), ("other", "two")):
        (tmp_path / f"{old}.store").rename(tmp_path / f"{new}.store")
    verbs = [
        ("restore", "one.db", "-o", "out.db"),
        ("verify", "one.db"),
        ("ls", "one.db"),
        ("show", "one.db", "0"),
    ]
    told = [replicator(*verb, cwd=tmp_path, **environ) for verb in verbs]
    by_url = replicator("restore", "one.store", "-o", "given.db", cwd=tmp_path, **environ)

    assert [11] * len(verbs) == [each.code for each in told], [each.err for each in told]
    assert all("of another database" in each.err for each in told)
    assert not (tmp_path / "out.db").exists()
    assert 0 == by_url.code, by_url.err
    assert oracle.database_digest(tmp_path / "two.db") == oracle.database_digest(tmp_path / "given.db")


@pytest.mark.parametrize("lost", ["gone", "empty", "without fulls", "another's"])
def test_a_database_is_restored_from_the_store_that_has_it(tmp_path: Path, lost: str) -> None:
    replicated(tmp_path, "app", "first", "second")
    if lost == "without fulls":
        shutil.rmtree(tmp_path / "first" / "full")
    else:
        shutil.rmtree(tmp_path / "first")
    if lost == "empty":
        (tmp_path / "first").mkdir()
    if lost == "another's":
        replicated(tmp_path, "other", "first")
    done = replicator("restore", "app.db", "-o", "out.db", cwd=tmp_path)

    assert 0 == done.code, done.err
    assert "passed over" in done.err
    assert oracle.database_digest(tmp_path / "app.db") == oracle.database_digest(tmp_path / "out.db")


def test_every_store_of_a_database_is_verified(tmp_path: Path) -> None:
    replicated(tmp_path, "app", "first", "second")
    whole = replicator("--json", "verify", "app.db", cwd=tmp_path)
    (pack,) = (tmp_path / "second").rglob("*.pack")
    pack.write_bytes(pack.read_bytes()[:-1])
    hurt = replicator("verify", "app.db", cwd=tmp_path)
    shutil.rmtree(tmp_path / "first")
    gone = replicator("verify", "app.db", cwd=tmp_path)

    assert 0 == whole.code, whole.err
    assert ["first", "second"] == [Path(json.loads(line)["store"]).name for line in whole.out.splitlines()]
    assert (13, 13) == (hurt.code, gone.code)
    assert hurt.out.count("nothing is hurt") == 1
    assert "NOT SEEN" in gone.out
    assert gone.out.count("HURT") == 1
