"""metadata.json: complete, right to the byte, made again from the objects alone, and of no harm if it is damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from replicator import catalogue
from replicator.catalogue import CatalogueFile
from replicator.cli.entry import run
from replicator.core.errors import StoreDenied, StoreUnavailable
from replicator.core.metadata import decode_metadata, stored_in, sums
from replicator.core.names import (
    METADATA,
    FullName,
    IncrementalName,
    PackName,
    parse_name,
    split_revision,
)
from replicator.core.retention_policy import Policy
from replicator.jobs import FULL, INCREMENTAL, PRUNE, REPAIR
from replicator.key_change import KeyHolders, rotate
from replicator.rekey import rekey
from replicator.repository import Manifests
from replicator.store.sealed import SealedStore
from tests.support.clinic import SOURCES, Clinic, Made


def said_in(clinic: Clinic) -> dict[str, Any]:
    return decode_metadata(clinic.store.get(METADATA))


def rebuilt(clinic: Clinic) -> bytes:
    """By who knows nothing but the store, and puts it nowhere else."""
    store = SealedStore(clinic.inner, clinic.keys)
    return CatalogueFile(store, Manifests()).rebuild(lambda _: None)


def require_right(clinic: Clinic) -> None:
    """All backups, all that they need, each with the length and the SHA-256 of its bytes as they lie there; and whoever
    makes it from the objects alone gets the same."""
    said = said_in(clinic)
    lying = {
        name
        for name in clinic.objects.names
        if isinstance(parse_name(split_revision(name)[0]), FullName | IncrementalName | PackName)
    }
    ids = [
        parsed.backup_id
        for name in lying
        if isinstance(parsed := parse_name(split_revision(name)[0]), FullName | IncrementalName)
    ]
    found = {each.name: (each.size_bytes, each.sha256) for each in stored_in(said)}

    assert sorted(ids) == sorted(each["id"] for each in said["backups"])
    assert {name: measured(clinic.objects.get(name)) for name in lying} == found
    made = decode_metadata(rebuilt(clinic))
    for generation in (*said["generations"], *made["generations"]):
        del generation["log"]  # as of the newest backup
    assert said == made


def measured(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()


# --- what it says --------------------------------------------------------------------------------------


def test_s19_s32_it_lists_every_object_of_every_backup(clinic: Clinic) -> None:
    """After fulls, incrementals and prunings, by one agent or by several."""
    require_right(clinic)
    for kind in (INCREMENTAL, FULL, INCREMENTAL):
        clinic.commit()
        clinic.do(kind)
        require_right(clinic)
        clinic.restart(kill=kind == FULL)
    clinic.policy = Policy(log_hours=0.01, incremental_days=1, full_days=1, months=0)
    clinic.clock.advance(3 * 86_400)
    clinic.commit()
    clinic.do(FULL)
    before = len(said_in(clinic)["backups"])
    assert clinic.do(PRUNE)["deleted"]

    assert len(said_in(clinic)["backups"]) < before
    require_right(clinic)


def test_s19_it_says_what_people_ask(clinic: Clinic) -> None:
    """Of each backup what it is, when, on what, and how far it was proved; of each generation when and why it began,
    and how far its log reaches."""
    clinic.do(FULL)
    assert clinic.store.get(METADATA) == rebuilt(clinic)
    said = said_in(clinic)
    fulls = [each for each in said["backups"] if each["type"] == "full"]
    incrementals = [each for each in said["backups"] if each["type"] == "incremental"]
    (generation,) = said["generations"]

    assert (3, 2) == (len(fulls), len(incrementals))
    assert [each["id"] for each in fulls[:2]] == [each["parent"] for each in incrementals]
    assert {"checksummed"} == {each["verified"] for each in said["backups"]}
    assert all(each["committed"] <= each["created"] for each in said["backups"])
    assert {str(each) for each in clinic.digests} >= {each["position"] for each in said["backups"][1:]}
    assert "first run" == generation["reason"]
    assert 6 == generation["log"]["objects"]
    assert f"{10:016x}" == generation["log"]["txid_last"]


@pytest.mark.parametrize("kind", ["plain", "sealed"])
def test_s32_a_copy_is_checked_with_the_tools_of_any_system(
    made: Made, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `catalogue sums` prints `sha256sum -c` takes, in a copy of the store; and one bit is told by it."""
    clinic = made(kind)
    copy = copied(clinic, tmp_path)
    for name, value in SOURCES[kind].environ.items():
        monkeypatch.setenv(name, value)
    assert 0 == run(["catalogue", "sums", str(copy)])
    lines = capsys.readouterr().out
    tool = shutil.which("sha256sum")

    assert lines.splitlines() == list(sums(said_in(clinic)))
    if tool is None:
        pytest.skip("there is no sha256sum")
    check = [tool, "--check", "--quiet", "-"]
    assert 0 == subprocess.run(check, input=lines.encode(), cwd=copy, check=False).returncode
    pack = copy / clinic.names(PackName)[0]
    content = pack.read_bytes()
    pack.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    done = subprocess.run(check, input=lines.encode(), cwd=copy, check=False, capture_output=True)
    assert done.returncode
    assert [f"{clinic.names(PackName)[0]}: FAILED"] == done.stdout.decode().splitlines()


def copied(clinic: Clinic, folder: Path) -> Path:
    copy = folder / "copy"
    for name in clinic.objects.names:
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clinic.objects.get(name))
    return copy


def test_s25_nobody_reads_it_without_the_key(made: Made) -> None:
    """It tells of times and sizes; sealed like all else, and right again under the next key."""
    clinic = made("sealed")
    data = clinic.objects.get(METADATA)

    assert clinic.generation.encode() not in data
    assert clinic.generation.encode() in clinic.store.get(METADATA)


# --- made again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "sealed"])
def test_s19_it_is_made_again_from_the_objects_alone(
    made: Made, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a copy of the store without it, by the command line, on a machine that knows nothing else."""
    clinic = made(kind)
    copy = copied(clinic, tmp_path)
    (copy / METADATA).unlink()
    for name, value in SOURCES[kind].environ.items():
        monkeypatch.setenv(name, value)
    assert 0 == run(["catalogue", "rebuild", str(copy), "--json"])
    told = json.loads(capsys.readouterr().out)
    clinic.objects.replace(METADATA, (copy / METADATA).read_bytes())

    assert (4, 8) == (told["backups"], told["objects"])
    require_right(clinic)


def test_s19_what_was_sealed_anew_is_listed_as_it_lies_there(made: Made) -> None:
    """Under the names of its revisions, after a rekeying beside the agent."""
    clinic = made("sealed")
    holders = KeyHolders([clinic.inner], clinic.source, clinic.state.keys_path)
    ring = rotate(holders, clinic.clock.wall())
    clinic.keys.look()
    rekey(
        SealedStore(clinic.inner, clinic.keys),
        ring.active.key_id,
        report=lambda _: None,
        cancelled=lambda: False,
    )
    clinic.commit()
    clinic.do(FULL)

    assert [] != [each for each in stored_in(said_in(clinic)) if each.name.endswith(".r2.full")]
    require_right(clinic)


def test_s32_what_was_put_back_is_listed_as_it_lies_there_now(clinic: Clinic) -> None:
    """Sealed anew it has the same name and size, and other bytes."""
    clinic.mirror()
    hurt = [*clinic.names(PackName), *clinic.names(FullName)]
    for name in hurt:
        clinic.cut(name)
    done = clinic.repair()

    assert sorted(hurt) == sorted(done["put_back"])
    require_right(clinic)
    clinic.restart()
    clinic.commit()
    clinic.do(FULL)
    require_right(clinic)


# --- damaged, missing, refused -------------------------------------------------------------------------


def hostile(said: dict[str, Any]) -> bytes:
    said["backups"] = [{"objects": 1}, {"objects": [3, {"name": 4}]}, {}]
    return json.dumps(said).encode()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\\xff\\xfe", b'{"kind": "replicator-metadata", "format": 1}', b"[" * 100_000],
)
@pytest.mark.parametrize("gone", [False, True])
def test_s19_a_damaged_or_missing_one_harms_nothing(made: Made, content: bytes, gone: bool) -> None:
    """Everything is restored beside it, the agent goes on, and the next backup writes it anew."""
    clinic = made("plain")
    if gone:
        clinic.objects.delete(METADATA)
    else:
        clinic.objects.replace(METADATA, content)
    clinic.require_all()
    clinic.restart()
    clinic.commit()
    clinic.do(INCREMENTAL)

    clinic.require_all()
    require_right(clinic)


def test_s38_a_wrong_checksum_in_it_is_found_and_put_right(clinic: Clinic) -> None:
    """It is not the object that is hurt; who reads the file would believe so."""
    said = said_in(clinic)
    wrong = said["backups"][1]["objects"][0]
    wrong["sha256"] = "0" * 64
    clinic.store.replace(METADATA, json.dumps(said).encode())
    clinic.restart()  # what was known of it is known from the file now
    (found,) = clinic.look().found

    assert METADATA == found.name
    assert wrong["name"] in found.fault
    done = clinic.repair()
    assert [METADATA] == done["put_back"]
    assert ([], {}, None) == (done["set_aside"], done["left"], done["full"])
    clinic.require_well()
    require_right(clinic)


def test_where_it_may_not_be_replaced_backups_are_made_all_the_same(clinic: Clinic) -> None:
    """As with credentials that may only add, or a store that is away just then; the next one writes it."""
    for error in (StoreDenied("no"), StoreUnavailable("away")):
        before = clinic.objects.get(METADATA)
        clinic.commit()
        clinic.faulty.fail("replace", error=error)
        assert clinic.do(INCREMENTAL)["backup"]
        assert before == clinic.objects.get(METADATA)
    clinic.commit()
    clinic.do(INCREMENTAL)

    require_right(clinic)


def test_a_store_that_was_there_before_it_is_hashed_bit_by_bit(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading costs money: so much each time, until all of it is listed; and none of it is read twice."""
    clinic.objects.delete(METADATA)
    clinic.restart()
    sizes = {name: len(clinic.objects.get(name)) for name in clinic.names(PackName)}
    monkeypatch.setattr(catalogue, "HASHED_BYTES", max(sizes.values()) + 5_000)
    listed: list[int] = []
    for _ in range(4):
        clinic.commit()
        clinic.do(INCREMENTAL)
        listed.append(len(list(stored_in(said_in(clinic)))))

    assert listed == sorted(listed)
    assert listed[0] < 8
    require_right(clinic)


def test_s19_it_is_not_needed_to_repair_nor_to_prune(clinic: Clinic) -> None:
    """Both write it anew."""
    for kind, arguments in ((PRUNE, {}), (REPAIR, {"names": []})):
        clinic.objects.delete(METADATA)
        clinic.policy = Policy(log_hours=0.001, incremental_days=0, full_days=0, months=0)
        clinic.clock.advance(3 * 86_400)
        clinic.do(kind, **arguments)
        require_right(clinic)
