"""The small JSON objects: readable for people, and held to their types when they come back."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import FormatTooNew, ObjectCorrupt
from replicator.core.position import GenerationId
from replicator.core.records import (
    RECORD_BYTES_MAX,
    SEALED,
    GenerationRecord,
    LeaseRecord,
    RepositoryRecord,
    decode_generation,
    decode_lease,
    decode_repository,
    encode_record,
)

G = GenerationId("00112233445566ff")
REPOSITORY = RepositoryRecord("ab" * 16, "2025-01-28T06:00:00.000000Z")
GENERATION = GenerationRecord(G, "ab" * 16, 3, 1_738_044_000_000_000, "first run", 4096, None)
LEASE = LeaseRecord(3, "0123456789abcdef", "host.example", 4711, "2025-01-28T06:00:00.000000Z", False)

Decode = Callable[[bytes, str], Any]
KINDS: list[tuple[Any, Decode]] = [
    (REPOSITORY, decode_repository),
    (GENERATION, decode_generation),
    (LEASE, decode_lease),
]
FIELDS = sorted({field for record, _ in KINDS for field in asdict(record)} - {"kind"})


@pytest.mark.parametrize(("record", "decode"), KINDS)
def test_records_read_back(record: Any, decode: Decode) -> None:
    """What was written of a record is read as the same."""
    assert record == decode(encode_record(record), f"generations/{G}.json")


def test_a_generation_knows_the_one_before() -> None:
    """The previous generation reads back too."""
    record = GenerationRecord(G, "ab" * 16, 3, 0, "page size changed: é", 512, GenerationId("ff" * 8))

    assert record == decode_generation(encode_record(record), f"generations/{G}.json")


def test_records_can_be_read_by_people() -> None:
    """One key a line, and a line end at the end."""
    text = encode_record(REPOSITORY).decode()

    assert '{\n  "repository": "abababab' in text
    assert '\n  "kind": "replicator-repository"\n}\n' in text


@pytest.mark.parametrize("decode", [decode_repository, decode_generation, decode_lease])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"5",
        b'"text"',
        b"{}",
        b'{"kind": "something else"}',
        b'{"kind": 5}',
        b'{"kind": ["replicator-lease"]}',
        b"\xff\xfe\xfd",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"kind": ' + b"9" * 5_000 + b"}",
        b" " * (RECORD_BYTES_MAX + 1),
    ],
    ids=range(15),
)
def test_what_is_no_record_is_corrupt(decode: Decode, data: bytes) -> None:
    """No JSON, other JSON, absurd nesting or size: ObjectCorrupt that carries the name."""
    with pytest.raises(ObjectCorrupt, match="the-name"):
        decode(data, "the-name")


@pytest.mark.parametrize(
    ("record", "decode", "key", "value"),
    [
        (REPOSITORY, decode_repository, "repository", "ab" * 15),
        (REPOSITORY, decode_repository, "repository", "AB" * 16),
        (REPOSITORY, decode_repository, "repository", "ab" * 16 + "\n"),
        (REPOSITORY, decode_repository, "repository", "../" * 11),
        (REPOSITORY, decode_repository, "repository", None),
        (REPOSITORY, decode_repository, "created", 5),
        (REPOSITORY, decode_repository, "format", "1"),
        (REPOSITORY, decode_repository, "format", True),
        (REPOSITORY, decode_repository, "features", None),
        (REPOSITORY, decode_repository, "features", "sealed"),
        (REPOSITORY, decode_repository, "features", {"sealed": True}),
        (GENERATION, decode_generation, "generation", "../../etc/passwd"),
        (GENERATION, decode_generation, "generation", "00112233445566FF"),
        (GENERATION, decode_generation, "previous", "x"),
        (GENERATION, decode_generation, "previous", 5),
        (GENERATION, decode_generation, "previous", ""),
        (GENERATION, decode_generation, "repository", "x"),
        (GENERATION, decode_generation, "epoch", "3"),
        (GENERATION, decode_generation, "epoch", 3.0),
        (GENERATION, decode_generation, "began", None),
        (GENERATION, decode_generation, "began", True),
        (GENERATION, decode_generation, "reason", ["why"]),
        (GENERATION, decode_generation, "page_size", "4096"),
        (LEASE, decode_lease, "epoch", 1e3),
        (LEASE, decode_lease, "writer", 5),
        (LEASE, decode_lease, "host", None),
        (LEASE, decode_lease, "pid", "4711"),
        (LEASE, decode_lease, "took_over", 0),
        (LEASE, decode_lease, "took_over", None),
        (LEASE, decode_lease, "claimed", {}),
    ],
)
def test_a_field_of_another_type_is_corrupt(record: Any, decode: Decode, key: str, value: Any) -> None:
    """Every field that is used is held to its type and pattern; the error names object and field."""
    loaded = json.loads(encode_record(record))
    loaded[key] = value

    name = f"generations/{G}.json"
    with pytest.raises(ObjectCorrupt, match=f"{name} holds .*'{key}'"):
        decode(json.dumps(loaded).encode(), name)


@pytest.mark.parametrize(("record", "decode"), KINDS)
def test_a_missing_field_is_corrupt_and_a_new_one_is_ignored(record: Any, decode: Decode) -> None:
    """Later versions may add fields; they may not leave any out but the previous generation and features."""
    loaded = json.loads(encode_record(record))
    for key in loaded:
        rest = {each: value for each, value in loaded.items() if each != key}
        if key in ("previous", "features"):
            assert record == decode(json.dumps(rest).encode(), f"generations/{G}.json")
        else:
            with pytest.raises(ObjectCorrupt):
                decode(json.dumps(rest).encode(), f"generations/{G}.json")

    assert record == decode(json.dumps(loaded | {"surprise": [1]}).encode(), f"generations/{G}.json")


@pytest.mark.parametrize("found", [0, 2, 999])
def test_a_repository_of_another_format_is_too_new(found: int) -> None:
    """The format of the repository is asked first of all."""
    loaded = json.loads(encode_record(REPOSITORY)) | {
        "format": found,
        "repository": "later ones look different",
    }

    with pytest.raises(FormatTooNew, match=f"format {found}"):
        decode_repository(json.dumps(loaded).encode(), f"generations/{G}.json")


def test_a_repository_says_whether_it_is_encrypted() -> None:
    """By a feature, which reads back; without one nothing is."""
    encrypted = replace(REPOSITORY, features=(SEALED,))

    assert encrypted == decode_repository(encode_record(encrypted), "name")
    assert (True, False) == (encrypted.sealed, REPOSITORY.sealed)
    assert ["sealed"] == json.loads(encode_record(encrypted))["features"]


@pytest.mark.parametrize(
    ("features", "named"),
    [
        (["thawed"], "thawed"),
        (["sealed", "thawed"], "thawed"),
        (["b", "a"], "a, b"),
        (["SEALED"], "SEALED"),
        ([5], "5"),
        ([["sealed"]], "sealed"),
        ([None], "None"),
        ([""], "asks for"),
    ],
)
def test_a_repository_with_a_feature_that_is_not_known_is_too_new(features: list[Any], named: str) -> None:
    """Whoever does not know it would read wrongly; the error names it."""
    loaded = json.loads(encode_record(REPOSITORY)) | {"features": features}

    with pytest.raises(FormatTooNew, match=named):
        decode_repository(json.dumps(loaded).encode(), "name")


@given(
    kind=st.sampled_from(KINDS),
    fields=st.dictionaries(
        st.sampled_from(FIELDS),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
            lambda inner: (
                st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
            ),
            max_leaves=4,
        ),
        max_size=5,
    ),
)
def test_any_json_is_read_or_refused(kind: tuple[Any, Decode], fields: dict[str, Any]) -> None:
    """Whatever stands in a record: our errors, or a record that writes itself the same way again."""
    record, decode = kind
    loaded = json.loads(encode_record(record)) | fields
    with contextlib.suppress(ObjectCorrupt, FormatTooNew):
        found = decode(json.dumps(loaded).encode(), f"generations/{G}.json")
        assert found == decode(encode_record(found), f"generations/{G}.json")


def test_a_record_under_the_name_of_another_is_corrupt() -> None:
    """The name says which generation it is of."""
    with pytest.raises(ObjectCorrupt, match=f"is the record of generation {G}"):
        decode_generation(encode_record(GENERATION), "generations/ffffffffffffffff.json")


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(data: bytes) -> None:
    """Foreign bytes are ObjectCorrupt for every kind."""
    for _, decode in KINDS:
        with pytest.raises(ObjectCorrupt):
            decode(data, f"generations/{G}.json")
