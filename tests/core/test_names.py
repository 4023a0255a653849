"""Names of objects: each reads back to itself, and nothing else is taken for one of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.names import (
    FullName,
    GenerationName,
    KeyName,
    LeaseName,
    ObjectName,
    PackName,
    SegmentName,
    parse_name,
    sealed_kind,
    tail_prefix,
)
from replicator.core.position import GenerationId

G = "00112233445566ff"
GENERATION = GenerationId(G)
SECOND = 1_000_000
TIME = 1_738_029_600 * SECOND  # 2025-01-28T02:00:00Z

hex16 = st.binary(min_size=8, max_size=8).map(bytes.hex)
generations = hex16.map(GenerationId)
txids = st.integers(0, 2**64 - 1)
times = st.integers(0, 253_402_300_799).map(lambda seconds: seconds * SECOND)
names: st.SearchStrategy[ObjectName] = st.one_of(
    st.builds(GenerationName, generations),
    st.builds(LeaseName, st.integers(0, 99_999_999)),
    st.builds(KeyName, st.integers(0, 99_999_999)),
    st.builds(FullName, times, generations, txids),
    st.builds(PackName, times, generations, txids, hex16),
    st.builds(SegmentName, generations, txids, st.integers(0, 999_999_999)),
)

SPELLED: list[tuple[ObjectName, str]] = [
    (GenerationName(GENERATION), f"generations/{G}.json"),
    (LeaseName(3), "leases/00000003.json"),
    (KeyName(12), "keys/00000012.json"),
    (FullName(TIME, GENERATION, 255), f"full/2025/01/28/20250128T020000Z-{G}-00000000000000ff.full"),
    (
        PackName(TIME, GENERATION, 255, "ab" * 8),
        f"full/2025/01/28/20250128T020000Z-{G}-00000000000000ff-abababababababab.pack",
    ),
    (SegmentName(GENERATION, 255), f"tail/{G}/00000000000000ff.segment"),
    (SegmentName(GENERATION, 255, 12), f"tail/{G}/00000000000000ff-p0012.segment"),
    (SegmentName(GENERATION, 255, 12_345), f"tail/{G}/00000000000000ff-p12345.segment"),
]


@pytest.mark.parametrize(("value", "spelled"), SPELLED)
def test_names_are_spelled_as_the_format_says(value: ObjectName, spelled: str) -> None:
    """Every kind of object has one spelling, and that reads back."""
    assert spelled == str(value)
    assert value == parse_name(spelled)


@given(names)
def test_every_name_reads_back(value: ObjectName) -> None:
    """Whatever we can name, we recognise."""
    assert value == parse_name(str(value))


def test_a_backup_id_is_the_stem_of_its_name() -> None:
    """The id that people type is the file name without its suffix."""
    full = FullName(TIME, GENERATION, 255)

    assert f"20250128T020000Z-{G}-00000000000000ff" == full.backup_id
    assert str(full).endswith(f"/{full.backup_id}.full")


HOSTILE = [
    "",
    "/",
    ".",
    "..",
    "repository.json",
    "metadata.json",
    f"generations/{G}",
    f"generations/{G}.json/",
    f"generations/{G}.json\n",
    f"generations/{G}.jsonx",
    f"generations/x{G}.json",
    f"generations//{G}.json",
    f"/generations/{G}.json",
    f"./generations/{G}.json",
    f"generations/../generations/{G}.json",
    f"generations/{G.upper()}.json",
    f"generations/{G[:-1]}.json",
    f"generations/{G}0.json",
    f"Generations/{G}.json",
    "generations/..............f.json",
    "leases/3.json",
    "leases/000000003.json",
    "leases/0000000x.json",
    "leases/-0000003.json",
    "leases/0000000٣.json",  # a digit, but not one of ours
    "leases/+0000003.json",
    "leases/0000_003.json",
    "keys/1.json",
    "keys/000000001.json",
    "keys/00000001",
    "keys/00000001.json.old",
    "keys/+0000001.json",
    "keys//00000001.json",
    "keys.json",
    f"full/2025/01/28/20250128T020000Z-{G}-ff.full",
    f"full/2025/01/29/20250128T020000Z-{G}-00000000000000ff.full",  # under another day
    f"full/2025/1/28/20250128T020000Z-{G}-00000000000000ff.full",
    f"full/20250128T020000Z-{G}-00000000000000ff.full",
    f"full/2025/01/28/20250128T020000-{G}-00000000000000ff.full",
    f"full/2025/01/28/20250128t020000z-{G}-00000000000000ff.full",
    f"full/2025/01/28/20250128T020000Z-{G}-00000000000000FF.full",
    f"full/2025/01/28/20250128T020000Z-{G}-00000000000000ff.FULL",
    f"full/2025/01/28/20250128T020000Z-{G}-00000000000000ff-abababababababab.full",
    f"full/2025/01/28/20250128T020000Z-{G}-00000000000000ff.pack",
    f"full/2025/01/28/20250128T020000Z-{G}-00000000000000ff-ABABABABABABABAB.pack",
    f"full/2025/01/28/20250128T020000Z-{G}-00000000000000ff-ababababababab.pack",
    f"full/2025/01/28/../28/20250128T020000Z-{G}-00000000000000ff.full",
    f"full/2025/02/30/20250230T020000Z-{G}-00000000000000ff.full",  # no such day
    f"full/2025/13/01/20251301T020000Z-{G}-00000000000000ff.full",
    f"full/2025/01/28/20250128T250000Z-{G}-00000000000000ff.full",
    f"full/2025/01/28/20250128T020060Z-{G}-00000000000000ff.full",
    f"full/1969/12/31/19691231T235959Z-{G}-00000000000000ff.full",
    f"full/0000/01/28/00000128T020000Z-{G}-00000000000000ff.full",
    f"tail/{G}/00000000000000ff.segment.tmp",
    f"tail/{G}/.00000000000000ff.segment",
    f"tail/{G}/00000000000000ff-p0000.segment",  # part 0 is no part
    f"tail/{G}/00000000000000ff-p12.segment",
    f"tail/{G}/00000000000000ff-p00012.segment",
    f"tail/{G}/00000000000000ff-p1234567890.segment",
    f"tail/{G}/00000000000000ff-P0012.segment",
    f"tail/{G}/000000000000000ff.segment",
    f"tail/{G}/00000000000000FF.segment",
    f"tail/{G}//00000000000000ff.segment",
    f"tail/{G}/../{G}/00000000000000ff.segment",
    f"tail/{G.upper()}/00000000000000ff.segment",
    f"tail\\{G}\\00000000000000ff.segment",
    f"tail/{G}/00000000000000ff.segment\0",
    f" tail/{G}/00000000000000ff.segment",
    f"tail/{G}/" + "0" * 5_000 + ".segment",
    f"tail/{G}/00000000000000ff-p" + "1" * 5_000 + ".segment",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_we_never_write_is_none(name: str) -> None:
    """Another case, another day, dots, double slashes, foreign digits, any length: not ours."""
    assert parse_name(name) is None


@given(value=names, at=st.integers(0, 100), junk=st.text(max_size=3), cut=st.integers(0, 3))
def test_a_changed_name_is_another_name_or_none(value: ObjectName, at: int, junk: str, cut: int) -> None:
    """No two spellings stand for one object: what is accepted spells itself."""
    name = str(value)
    changed = name[:at] + junk + name[at + cut :]
    parsed = parse_name(changed)

    assert parsed is None or changed == str(parsed)


@given(st.lists(st.builds(SegmentName, generations, txids, st.just(0)), max_size=8))
def test_segments_list_in_the_order_of_their_transactions(segments: list[SegmentName]) -> None:
    """Within a generation the order of names is that of txids, so a listing can go on after a name."""
    assert [str(each) for each in sorted(segments)] == sorted(str(each) for each in segments)


def test_the_parts_of_a_transaction_list_in_order_before_what_follows() -> None:
    """Parts up to 9999 sort by number, behind the transaction before and before the one after."""
    wanted = [
        SegmentName(GENERATION, 4),
        SegmentName(GENERATION, 5, 1),
        SegmentName(GENERATION, 5, 2),
        SegmentName(GENERATION, 5, 9_999),
        SegmentName(GENERATION, 6),
    ]

    assert wanted == [parse_name(name) for name in sorted(str(each) for each in wanted)]


def test_a_tail_is_the_folder_of_one_generation() -> None:
    """The prefix ends in a slash, so that no other generation begins with it."""
    assert f"tail/{G}/" == tail_prefix(GENERATION)
    assert str(SegmentName(GENERATION, 1)).startswith(tail_prefix(GENERATION))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("repository.json", None),
        ("keys/00000001.json", None),
        ("keys/anything", None),
        ("keys/00000001.segment", None),
        ("keys.json", 1),
        ("repository.json.old", 1),
        ("folder/repository.json", 1),
        ("leases/00000003.json", 1),
        (f"generations/{G}.json", 1),
        ("metadata.json", 1),
        ("a-name-without-a-suffix", 1),
        ("", 1),
        (f"full/2025/01/28/20250128T020000Z-{G}-00000000000000ff.full", 2),
        (f"full/2025/01/28/20250128T020000Z-{G}-00000000000000ff-abababababababab.pack", 3),
        (f"tail/{G}/00000000000000ff.segment", 4),
        (f"tail/{G}/00000000000000ff-p0012.segment", 4),
        ("log/2025/01/28/a.log", 5),
        ("incremental/2025/01/28/a.incremental", 6),
    ],
)
def test_every_object_is_sealed_as_its_kind(name: str, kind: int | None) -> None:
    """By its suffix; only what tells how to open the rest is not sealed at all."""
    assert kind == sealed_kind(name)
