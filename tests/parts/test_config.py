"""What a configuration may say: of one database, of several, in a file and by the Python interface."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from replicator.agent import Agent
from replicator.config import DatabaseConfig, load_config
from replicator.core.errors import ConfigError
from tests.parts.rig import Rig
from tests.support.app import App


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"path": ""}, "path"),
        ({"path": "a\0b"}, "path"),
        ({"path": 7}, "path"),
        ({"stores": "/backups/app"}, "stores"),
        ({"stores": b"/backups/app"}, "stores"),
        ({"stores": Path("/backups/app")}, "stores"),
        ({"stores": None}, "stores"),
        ({"stores": ("",)}, "stores"),
        ({"stores": (7,)}, "stores"),
        ({"state": ""}, "state"),
        ({"ship_interval": -0.1}, "ship_interval"),
        ({"ship_interval": float("nan")}, "ship_interval"),
        ({"ship_interval": "50ms"}, "ship_interval"),
        ({"spool_bytes_max": -1}, "spool_bytes_max"),
        ({"spool_bytes_max": 1.5}, "spool_bytes_max"),
    ],
)
def test_what_no_database_can_have_is_refused(given: dict[str, Any], named: str) -> None:
    """The key is named, at once and not by what comes of it later."""
    with pytest.raises(ConfigError, match=f"`{named}`"):
        DatabaseConfig(**{"path": "app.db", "stores": ("/backups/app",), **given})


def test_paths_may_be_path_objects(tmp_path: Path) -> None:
    """They are kept as text, stores in a list as a tuple; all that works on texts works on them."""
    given: Any = {"path": tmp_path / "app.db", "stores": [tmp_path / "store"], "state": tmp_path / "state"}
    config = DatabaseConfig(**given)

    assert (str(tmp_path / "app.db"), (str(tmp_path / "store"),)) == (config.path, config.stores)
    assert str(tmp_path / "state") == config.state_folder


def test_an_agent_needs_a_database_and_a_store(tmp_path: Path) -> None:
    """Without one it would run, and do nothing."""
    with pytest.raises(ConfigError, match="needs a database"):
        Agent([])
    with pytest.raises(ConfigError, match=r"`stores` of .* is empty"):
        Agent([DatabaseConfig(str(tmp_path / "app.db"), ())])


SPELT_ALIKE = [
    "{}/store",
    "{}/store/",
    "{}/./other/../store",
    "file://{}/store",
    "file://{}/%73tore",
    "{}/link",
]


@pytest.mark.parametrize("other", SPELT_ALIKE)
def test_a_store_stands_once_however_it_is_spelt(tmp_path: Path, other: str) -> None:
    """Within a database and between two, by the Python interface and in a file."""
    (tmp_path / "link").symlink_to("store")
    one, same = str(tmp_path / "store"), other.format(tmp_path)
    within = [DatabaseConfig("a.db", (one, same))]
    between = [DatabaseConfig("a.db", (one,)), DatabaseConfig("b.db", (str(tmp_path / "b"), same))]
    for databases in (within, between):
        with pytest.raises(ConfigError, match=f"the same store stands twice: file://{tmp_path}/store$"):
            Agent(databases)
        lines = [f"- {{path: {each.path}, stores: {list(each.stores)}}}\n" for each in databases]
        (tmp_path / "replicator.yml").write_text("databases:\n" + "".join(lines))
        with pytest.raises(ConfigError, match=r"replicator\.yml: the same store stands twice"):
            load_config(str(tmp_path / "replicator.yml"))


def test_a_database_and_a_state_folder_stand_once(tmp_path: Path) -> None:
    """A link to a database is that database; and two of them cannot keep their state in one folder."""
    Path(Rig(tmp_path).database).touch()
    os.symlink("app.db", tmp_path / "link.db")
    with pytest.raises(ConfigError, match="the same database stands twice"):
        Agent([Rig(tmp_path).config(), DatabaseConfig(str(tmp_path / "link.db"), (str(tmp_path / "b"),))])
    with pytest.raises(ConfigError, match="the same state folder stands twice"):
        Agent(
            [
                Rig(tmp_path).config(state=str(tmp_path / "state")),
                DatabaseConfig(
                    str(tmp_path / "b.db"), (str(tmp_path / "b"),), state=str(tmp_path / "." / "state")
                ),
            ]
        )


# --- files ---------------------------------------------------------------------------------------------


@pytest.mark.timeout(10)
def test_a_file_that_is_none_is_not_read(tmp_path: Path) -> None:
    """A pipe that nobody writes to would be waited for without end, and a device never ends."""
    os.mkfifo(tmp_path / "replicator.yml")
    for path in (str(tmp_path / "replicator.yml"), os.devnull, "/dev/zero"):
        with pytest.raises(ConfigError, match="not a regular file"):
            load_config(path)
    with pytest.raises(ConfigError, match="cannot read configuration"):
        load_config(str(tmp_path / "absent.yml"))
    with pytest.raises(ConfigError, match="cannot read configuration"):
        load_config(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("databases: " + "[" * 5000 + "]" * 5000, "is nested too deeply"),
        (
            "ship_interval: 1s\ndatabases: []\nship_interval: 2s\n",
            "`ship_interval` stands twice, again in line 3",
        ),
        ("databases: [{path: a.db, stores: [s], path: b.db}]", "`path` stands twice"),
        ("databases: []", "is no list of databases"),
        ("databases: [{path: '', stores: [s]}]", "`path`"),
        ("databases: [{path: a.db, stores: ['']}]", "`stores`"),
        ("databases: [{path: a.db, stores: [s\x01]}]", "is not YAML"),
        ("? {a: b}\n: 1\n", "is not YAML"),
    ],
)
def test_a_file_that_means_nothing_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """One line that names the file and the key."""
    path = tmp_path / "replicator.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as found:
        load_config(str(path))

    assert str(found.value).startswith(str(path))
    assert words in str(found.value)
    assert "\n" not in str(found.value)


def test_a_merged_key_may_be_overridden(tmp_path: Path) -> None:
    """That is what merging is for."""
    path = tmp_path / "replicator.yml"
    path.write_text(
        "databases:\n- &one {path: a.db, stores: [a], barrier: never}\n- {<<: *one, path: b.db, stores: [b]}\n"
    )

    assert [("a.db", False), ("b.db", False)] == [
        (each.name, each.barrier) for each in load_config(str(path)).databases
    ]


def test_each_kind_of_store_has_its_pace() -> None:
    """50 ms for a folder, a second elsewhere; what is captured goes by the fastest; one that is set is for all."""
    bucket, folder = "s3://bucket/app", "/backups/app"
    both = DatabaseConfig("app.db", (bucket, folder))
    alone = DatabaseConfig("app.db", (bucket,))
    given = DatabaseConfig("app.db", (bucket, folder), ship_interval=5.0)

    assert (1.0, 0.05, 0.05) == (both.interval_of(bucket), both.interval_of(folder), both.capture_interval)
    assert (1.0, 0.0) == (both.ship_pause_of(bucket), both.ship_pause_of(folder))
    assert (1.0, 1.0) == (alone.capture_interval, alone.ship_pause_of(bucket))
    assert (1.0, 5.0, 5.0) == (
        given.capture_interval,
        given.ship_pause_of(bucket),
        given.ship_pause_of(folder),
    )


@pytest.mark.parametrize("bandwidth", [0, -1, 1.5, "10MiB"])
def test_a_bandwidth_is_a_number_of_bytes(bandwidth: Any) -> None:
    """None is no limit; nothing else but a number above 0 is one."""
    with pytest.raises(ConfigError, match="`bandwidth`"):
        DatabaseConfig("app.db", ("/backups/app",), bandwidth=bandwidth)


def test_a_bandwidth_is_kept(tmp_path: Path) -> None:
    """`bandwidth` of the file reaches the store: half a megabyte at 256 KiB a second takes a second or more."""
    rig = Rig(tmp_path)
    with App(rig.database) as app:
        app.execute("INSERT INTO t(body) VALUES(randomblob(500000))")
        (tmp_path / "replicator.yml").write_text(
            f"bandwidth: 256KiB\ndatabases:\n- {{path: {rig.database}, stores: [store]}}\n"
        )
        config = load_config(str(tmp_path / "replicator.yml"))
        began = time.monotonic()
        with Agent(config) as agent:
            agent.wait_captured_and_shipped(30)
            app.insert()
            agent.wait_captured_and_shipped(30)
        took = time.monotonic() - began

    assert 262_144 == config.databases[0].bandwidth
    assert took > 1.0
