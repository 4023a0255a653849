"""The environment as configuration: every name and alias, what goes together and what does not."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replicator.cli.config import TEMPLATE
from replicator.config import AgentConfig, DatabaseConfig, environment_config, load_config, read_environment
from replicator.core.codec import DEFAULT, parse_compression
from replicator.core.errors import ConfigError
from replicator.core.retention_policy import Policy
from replicator.core.schedule_file import DEFAULT_SCHEDULES, PRINTED, parse_schedules
from replicator.core.variables import STORE_FAMILIES
from replicator.keys import KeySource

NONE = parse_compression("none")
KEY = hashlib.sha256(b"key").hexdigest()
PRINTED_NAMES = {
    "BACKUP_ENABLED": "true",
    "BACKUP_DIRECTORY": "./backups",
    "BACKUP_ENCRYPTION_KEY": KEY,
    "BACKUP_COMPRESSION": "true",
    "BACKUP_VERIFICATION": "true",
    "BACKUP_STORAGE_PROVIDER": "local",
    "BACKUP_RETENTION_DAYS": "30",
    "BACKUP_MAX_SIZE_GB": "100",
    "BACKUP_MONITORING_ENABLED": "true",
    "BACKUP_ALERT_EMAIL": "admin@example.org",
    "BACKUP_HEALTH_CHECK_INTERVAL": "21600000",
}


def configured(environ: Mapping[str, str]) -> tuple[DatabaseConfig, tuple[str, ...]]:
    """The one database of the environment, and the notices."""
    found = environment_config(environ)
    assert found is not None
    (database,) = found.databases
    return database, found.notices


def refused(environ: Mapping[str, str]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        environment_config({"DATABASE_PATH": "app.db", **environ})
    assert "\n" not in str(caught.value)
    return caught.value


def in_file(folder: Path, text: str, environ: Mapping[str, str]) -> DatabaseConfig:
    (folder / "replicator.yml").write_text(text)
    return load_config(str(folder / "replicator.yml"), environ).databases[0]


# --- as printed ----------------------------------------------------------------------------------------


def test_s97_to_s107_are_taken_as_printed() -> None:
    """All eleven at once: what they say is what is set, and what comes in a later version is told in one notice."""
    database, notices = configured(PRINTED_NAMES)

    assert ("./data/kanban.db", "kanban.db", ("./backups",)) == (
        database.path,
        database.name,
        database.stores,
    )
    assert (True, DEFAULT, True) == (database.enabled, database.compression, database.verification)
    assert Policy(full_days=30, max_bytes=100 * 10**9) == database.retention
    assert DEFAULT_SCHEDULES == database.schedules
    (notice,) = notices
    for name in ("BACKUP_MONITORING_ENABLED", "BACKUP_ALERT_EMAIL", "BACKUP_HEALTH_CHECK_INTERVAL"):
        assert name in notice
    assert "without effect in this version" in notice


@pytest.mark.parametrize(
    ("name", "text", "field", "expected"),
    [
        ("BACKUP_ENABLED", "false", "enabled", False),
        ("BACKUP_ENABLED", " TRUE ", "enabled", True),
        ("BACKUP_DIRECTORY", "/var/backups", "stores", ("/var/backups",)),
        ("BACKUP_STORES", "one s3://bucket/two", "stores", ("one", "s3://bucket/two")),
        ("BACKUP_COMPRESSION", "false", "compression", NONE),
        ("BACKUP_COMPRESSION", "gzip:9", "compression", parse_compression("gzip:9")),
        ("BACKUP_VERIFICATION", "0", "verification", False),
        ("BACKUP_RETENTION_DAYS", "10", "retention", Policy(full_days=10)),
        ("BACKUP_RETENTION_DAYS", "10d", "retention", Policy(full_days=10)),
        ("BACKUP_INCREMENTAL_RETENTION_DAYS", "3", "retention", Policy(incremental_days=3)),
        ("BACKUP_LOG_RETENTION_HOURS", "1.5", "retention", Policy(log_hours=1.5)),
        ("BACKUP_LOG_RETENTION_HOURS", "2d", "retention", Policy(log_hours=48)),
        ("BACKUP_MONTHLY_RETENTION_MONTHS", "24", "retention", Policy(months=24)),
        ("BACKUP_MAX_AGE_DAYS", "400", "retention", Policy(max_age_days=400)),
        ("BACKUP_MAX_SIZE_GB", "0.01", "retention", Policy(max_bytes=10_000_000)),
        ("BACKUP_MAX_SIZE_GB", "1.001", "retention", Policy(max_bytes=1_001_000_000)),
        ("BACKUP_KEY_MAX_AGE_DAYS", "30", "key_max_age", 30 * 86_400.0),
        ("BACKUP_LOG_INTERVAL", "5m", "log_interval", 300.0),
        ("BACKUP_SHIP_INTERVAL", "250ms", "ship_interval", 0.25),
        ("BACKUP_SPOOL_LIMIT", "2GiB", "spool_bytes_max", 2 << 30),
        ("BACKUP_BANDWIDTH", "10MiB", "bandwidth", 10 << 20),
        ("BACKUP_BARRIER", "never", "barrier", False),
    ],
)
def test_one_setting_of_the_environment(name: str, text: str, field: str, expected: Any) -> None:
    """S97 to S104 one by one, and our own: the field is set, and nothing is to be told of it."""
    database, notices = configured({"DATABASE_PATH": "app.db", name: text})

    assert (expected, ()) == (getattr(database, field), notices)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BACKUP_ENABLED", "maybe"),
        ("BACKUP_COMPRESSION", "lz4"),
        ("BACKUP_VERIFICATION", "2"),
        ("BACKUP_RETENTION_DAYS", "0"),
        ("BACKUP_RETENTION_DAYS", "-1"),
        ("BACKUP_RETENTION_DAYS", "12h"),
        ("BACKUP_RETENTION_DAYS", "30 days"),
        ("BACKUP_LOG_RETENTION_HOURS", "-1"),
        ("BACKUP_MONTHLY_RETENTION_MONTHS", "1.5"),
        ("BACKUP_MAX_SIZE_GB", "0"),
        ("BACKUP_MAX_SIZE_GB", "100GB"),
        ("BACKUP_MAX_SIZE_GB", "nan"),
        ("BACKUP_MAX_SIZE_GB", "inf"),
        ("BACKUP_MAX_SIZE_GB", "1e11"),
        ("MAX_BACKUP_SIZE", "1.5"),
        ("BACKUP_SHIP_INTERVAL", "1"),
        ("BACKUP_BARRIER", "always"),
        ("BACKUP_ENCRYPT", "perhaps"),
        ("BACKUP_INCREMENTAL", "sometimes"),
        ("BACKUP_SCHEDULE", "at night"),
        ("BACKUP_SCHEDULES", "{"),
        ("BACKUP_SCHEDULES", '{"schedules": 7}'),
        ("BACKUP_STORAGE_PROVIDER", "dropbox"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(name: str, text: str) -> None:
    """One line that names the variable, and a hint of what it takes."""
    problem = refused({name: text})

    assert str(problem).startswith(name)
    assert problem.hint


def test_what_is_empty_is_not_set() -> None:
    """As compose files leave variables that nobody filled in."""
    empty = dict.fromkeys(
        [*PRINTED_NAMES, "BACKUP_SCHEDULES", "BACKUP_SCHEDULES_FILE", "BACKUP_SCHEDULE"], " "
    )

    assert environment_config(empty) is None
    database, notices = configured({**empty, "DATABASE_PATH": "app.db"})
    assert (DatabaseConfig("app.db", ("./backups",), "app.db"), ()) == (database, notices)


# --- aliases -------------------------------------------------------------------------------------------

ALIASES = [
    # alias, its text, our own name, its text
    ("DATABASE_BACKUP_PATH", "/b", "BACKUP_DIRECTORY", "/b"),
    ("BACKUP_DIR", "/b", "BACKUP_DIRECTORY", "/b"),
    ("BACKUP_PATH", "/b", "BACKUP_DIRECTORY", "/b"),
    ("BACKUP_COMPRESS", "1", "BACKUP_COMPRESSION", "zstd"),
    ("BACKUP_COMPRESS", "off", "BACKUP_COMPRESSION", "false"),
    ("BACKUP_VERIFY_INTEGRITY", "no", "BACKUP_VERIFICATION", "false"),
    ("MAX_BACKUP_SIZE", "10000000", "BACKUP_MAX_SIZE_GB", "0.01"),
]


@pytest.mark.parametrize(("alias", "text", "own", "same"), ALIASES)
def test_x26_an_alias_is_taken_with_a_notice(alias: str, text: str, own: str, same: str) -> None:
    """It sets what our own name would, and one line says for what it is taken; both may stand if they agree."""
    database, notices = configured({"DATABASE_PATH": "app.db", alias: text})

    assert configured({"DATABASE_PATH": "app.db", own: same}) == (database, ())
    assert (f"{alias} is taken for {own}",) == notices
    assert (database, notices) == configured({"DATABASE_PATH": "app.db", own: same, alias: text})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("BACKUP_DIRECTORY", "/a"), ("BACKUP_DIR", "/b")),
        (("DATABASE_BACKUP_PATH", "/a"), ("BACKUP_PATH", "/b")),
        (("BACKUP_COMPRESSION", "true"), ("BACKUP_COMPRESS", "false")),
        (("BACKUP_VERIFICATION", "true"), ("BACKUP_VERIFY_INTEGRITY", "false")),
        (("BACKUP_MAX_SIZE_GB", "100"), ("MAX_BACKUP_SIZE", "1000000")),
        (("BACKUP_STORAGE_PROVIDER", "local"), ("STORAGE_PROVIDER", "s3")),
        (("BACKUP_S3_BUCKET", "bucket-a"), ("S3_BUCKET", "bucket-b")),
        (("BACKUP_SCHEDULE", "0 3 * * *"), ("BACKUP_SCHEDULES", json.dumps(PRINTED))),
        (("BACKUP_INCREMENTAL", "false"), ("BACKUP_SCHEDULES", json.dumps(PRINTED))),
        (("BACKUP_ENCRYPT", "false"), ("BACKUP_ENCRYPTION_KEY", KEY)),
        (("BACKUP_ENCRYPT", "false"), ("BACKUP_ENCRYPTION_PASSPHRASE_FILE", "/words")),
    ],
)
def test_x26_different_values_name_both(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Nobody can say which of the two was meant; a key is not shown."""
    more = {"BACKUP_STORAGE_PROVIDER": "s3"} if "S3" in one[0] else {}
    problem = refused({**more, **dict((one, other))})

    assert one[0] in str(problem)
    assert other[0] in str(problem)
    assert problem.hint == "leave one of them"
    assert KEY not in str(problem)


def test_x13_the_aliases_of_s3_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bucket, region and keys; what our own name says already needs no word."""
    database, notices = configured(
        {
            "STORAGE_PROVIDER": "s3",
            "S3_BUCKET": "kanban-backups",
            "S3_REGION": "eu-central-1",
            "S3_ACCESS_KEY": "access",
            "S3_SECRET_KEY": "s3cret-value",
            "BACKUP_S3_SECRET_KEY": "s3cret-value",
        }
    )

    assert ("s3://kanban-backups",) == database.stores
    assert {
        "STORAGE_PROVIDER is taken for BACKUP_STORAGE_PROVIDER",
        "S3_BUCKET is taken for BACKUP_S3_BUCKET",
        "S3_REGION is taken for BACKUP_S3_REGION",
        "S3_ACCESS_KEY is taken for BACKUP_S3_ACCESS_KEY",
    } == set(notices)


# --- stores --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "store"),
    [
        ({"BACKUP_STORAGE_PROVIDER": "local"}, "./backups"),
        ({"BACKUP_STORAGE_PROVIDER": "LOCAL", "BACKUP_DIRECTORY": "/b"}, "/b"),
        ({"BACKUP_STORAGE_PROVIDER": "s3", "BACKUP_S3_BUCKET": "kanban"}, "s3://kanban"),
        (
            {"BACKUP_STORAGE_PROVIDER": "s3", "BACKUP_S3_BUCKET": "kanban", "BACKUP_S3_PREFIX": "/a/b/"},
            "s3://kanban/a/b",
        ),
        ({"BACKUP_STORAGE_PROVIDER": "gcs", "BACKUP_GCS_BUCKET": "kanban"}, "gs://kanban"),
        (
            {
                "BACKUP_STORAGE_PROVIDER": "azure",
                "BACKUP_AZURE_ACCOUNT": "me",
                "BACKUP_AZURE_CONTAINER": "kanban",
                "BACKUP_AZURE_PREFIX": "app",
            },
            "azure://me/kanban/app",
        ),
        ({"STORAGE_PROVIDER": "sftp", "BACKUP_SFTP_URL": "sftp://me@host/app"}, "sftp://me@host/app"),
    ],
)
def test_s102_a_provider_is_one_of_the_printed(environ: Mapping[str, str], store: str) -> None:
    """local, s3, gcs, azure; and sftp. Each with the variables it needs."""
    assert (store,) == configured(environ)[0].stores


@pytest.mark.parametrize("text", ["local, s3, gcs, azure", "local # or s3", "google", "aws", "true"])
def test_s102_the_printed_alternatives_are_no_value(text: str) -> None:
    """Refused, with those that are."""
    problem = refused({"BACKUP_STORAGE_PROVIDER": text})

    assert f"BACKUP_STORAGE_PROVIDER is {text!r}" == str(problem)
    assert "local, s3, gcs, azure" in str(problem.hint)


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("s3", "BACKUP_S3_BUCKET"),
        ("gcs", "BACKUP_GCS_BUCKET"),
        ("azure", "BACKUP_AZURE_ACCOUNT"),
        ("sftp", "BACKUP_SFTP_URL"),
    ],
)
def test_s102_a_provider_without_its_place_is_refused(kind: str, missing: str) -> None:
    """With the variable to set."""
    assert f"the provider is {kind}, and {missing} is not set" == str(refused({"STORAGE_PROVIDER": kind}))


def test_a_directory_that_is_not_written_to_is_told() -> None:
    """It is printed beside the provider; where that is a cloud, or stores are listed, nothing goes there."""
    cloud = {"BACKUP_STORAGE_PROVIDER": "s3", "BACKUP_S3_BUCKET": "kanban", "BACKUP_DIRECTORY": "./backups"}
    listed = {"BACKUP_STORES": "/a /b", "BACKUP_DIR": "./backups"}

    assert ("BACKUP_DIRECTORY is without effect where the provider is s3",) == configured(cloud)[1]
    assert "BACKUP_DIR is without effect beside BACKUP_STORES" in configured(listed)[1]
    assert () == configured({"BACKUP_STORES": "/a /b", "BACKUP_DIRECTORY": "/a"})[1]


# --- over a file ---------------------------------------------------------------------------------------

FILE = """
compression: gzip
verification: false
retention: {log: 24h, incremental: 3d, full: 14d}
max_size: 5GB
databases:
- {path: app.db, stores: [store], retention: {full: 10d}, ship_interval: 2s}
"""


def test_the_environment_counts_more_than_a_file(tmp_path: Path) -> None:
    """Setting by setting: what it does not say stays as the file has it, within the retention as well."""
    plain = in_file(tmp_path, FILE, {})
    over = in_file(
        tmp_path,
        FILE,
        {"BACKUP_COMPRESS": "none", "BACKUP_RETENTION_DAYS": "60", "BACKUP_SHIP_INTERVAL": "1s"},
    )

    assert (parse_compression("gzip"), False, 2.0) == (
        plain.compression, plain.verification, plain.ship_interval,
    )  # fmt: skip
    assert Policy(24, 3, 10, max_bytes=5 * 10**9) == plain.retention
    assert (
        replace(plain, compression=NONE, ship_interval=1.0, retention=replace(plain.retention, full_days=60))
        == over
    )


def test_a_file_is_told_the_notices_of_the_environment(tmp_path: Path) -> None:
    """They hold for its databases."""
    (tmp_path / "replicator.yml").write_text(FILE)
    found = load_config(
        str(tmp_path / "replicator.yml"), {"BACKUP_COMPRESS": "true", "BACKUP_WEBHOOK_URL": "http://x"}
    )

    assert (
        "BACKUP_COMPRESS is taken for BACKUP_COMPRESSION",
        "BACKUP_WEBHOOK_URL: without effect in this version, which neither watches nor alerts",
    ) == found.notices


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("compressions: gzip", "did you mean `compression`?"),
        ("retentions: {full: 30d}", "did you mean `retention`?"),
        ("retention: {fulls: 30d}", "did you mean `full`?"),
        ("encryption: {keyfile: k}", "did you mean `key_file`?"),
        ("schedules: [{name: a, cron: '@daily', backup_type: full}]", "did you mean `backupType`?"),
        ("database: []", "did you mean `databases`?"),
        ("zzz: 1", "known are: databases, "),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, line: str, hint: str) -> None:
    """At each level; nothing is passed over."""
    with pytest.raises(ConfigError) as caught:
        in_file(tmp_path, f"{line}\ndatabases: [{{path: app.db, stores: [store]}}]\n", {})

    assert hint in str(caught.value.hint)


def test_an_unknown_key_of_a_database_names_the_nearest(tmp_path: Path) -> None:
    """With the file."""
    with pytest.raises(ConfigError, match=r"replicator.yml: unknown setting 'store'") as caught:
        in_file(tmp_path, "databases: [{path: app.db, store: [s]}]", {})

    assert "did you mean `stores`?" == caught.value.hint


def test_a_variable_that_is_nearly_one_of_ours_is_told() -> None:
    """The environment is the application's, too: what is far from our names is its own business."""
    near = {
        "BACKUP_RETENTION_DAY": "3",
        "BACKUP_ENABLE": "false",
        "BACKUP_SCHEDULER_THREADS": "4",
        "BACKUP_X": "1",
    }
    database, notices = configured({"DATABASE_PATH": "app.db", **near})

    assert DatabaseConfig("app.db", ("./backups",), "app.db") == database
    assert (
        "BACKUP_RETENTION_DAY is no setting, and without effect; did you mean BACKUP_RETENTION_DAYS?",
        "BACKUP_ENABLE is no setting, and without effect; did you mean BACKUP_ENABLED?",
    ) == notices


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("BACKUP_S3_ENDPONT", "BACKUP_S3_ENDPOINT"),
        ("BACKUP_S3_SECRETKEY", "BACKUP_S3_SECRET_KEY"),
        ("BACKUP_GCS_CREDENTIAL_FILE", "BACKUP_GCS_CREDENTIALS_FILE"),
        ("BACKUP_AZURE_ACOUNT_KEY", "BACKUP_AZURE_ACCOUNT_KEY"),
        ("BACKUP_SFTP_KNOWNHOSTS", "BACKUP_SFTP_KNOWN_HOSTS"),
        ("BACKUP_ENCRYPTION_KEYFILE", "BACKUP_ENCRYPTION_KEY_FILE"),
    ],
)
def test_a_setting_of_a_store_that_is_misspelt_is_refused(name: str, near: str) -> None:
    """It would be another server, or other keys; its value is not shown."""
    problem = refused({name: "s3cret-value"})

    assert f"{name} is no setting" in str(problem)
    assert near in str(problem.hint)
    assert "s3cret" not in str(problem) + str(problem.hint)


def test_what_begins_like_a_setting_of_a_store_is_told() -> None:
    """Something else may read it; we do not."""
    environ = {"DATABASE_PATH": "app.db", "BACKUP_S3_STORAGE_CLASS": "GLACIER", "BACKUP_S3_REGION_FILE": "r"}

    assert ("BACKUP_S3_STORAGE_CLASS is no setting, and without effect",) == configured(environ)[1]


def test_every_setting_of_a_store_in_the_manual_is_known() -> None:
    """Or nobody could follow it."""
    manual = (Path(__file__).parents[2] / "docs" / "OPERATIONS.md").read_text()
    names = set(re.findall(r"BACKUP_(?:S3|GCS|AZURE|SFTP)_[A-Z_]*[A-Z]", manual))
    known = {name for names in STORE_FAMILIES.values() for name in names}

    assert len(names) >= 7
    assert names <= known


def test_a_limit_of_nothing_is_refused(tmp_path: Path) -> None:
    """`max_size: 0` would let everything go that may."""
    with pytest.raises(ConfigError, match="`max_size`: it is 0"):
        in_file(tmp_path, "max_size: 0\ndatabases: [{path: app.db, stores: [store]}]", {})


def test_the_first_configuration_explains_the_defaults(tmp_path: Path) -> None:
    """Each setting it comments out is one, and says what is taken without it; but for what has no default."""
    without = ("bandwidth", "encryption", "  key_file", "  max_age", "max_size", "    state")
    lines = [re.sub(r"^(\s*)# (?=[\w ]+:|  - \{)", r"\1", line) for line in TEMPLATE.splitlines()]
    kept = [line for line in lines if not line.startswith(without)]
    told = [line for line in kept if line not in TEMPLATE.splitlines()]
    (tmp_path / "replicator.yml").write_text("\n".join(kept))
    database = load_config(str(tmp_path / "replicator.yml"), {}).databases[0]
    expected = DatabaseConfig(database.path, database.stores, "app.db", ship_interval=0.05)

    assert len(told) >= 17
    assert expected == database


# --- how long what is kept ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Policy(48, 7, 30, 12)),
        ({"BACKUP_RETENTION_DAYS": "10"}, Policy(48, 7, 10, 12)),
        ({"BACKUP_SCHEDULES": json.dumps(PRINTED)}, Policy(48, 7, 30, 12)),
        # as printed in both places: the schedule's number comes first
        ({"BACKUP_SCHEDULES": json.dumps(PRINTED), "BACKUP_RETENTION_DAYS": "10"}, Policy(48, 7, 30, 12)),
        (
            {"BACKUP_SCHEDULES": '[{"cron": "@daily", "type": "full"}]', "BACKUP_RETENTION_DAYS": "10"},
            Policy(48, 7, 10, 12),
        ),
        (
            {"BACKUP_SCHEDULES": '[{"cron": "@hourly", "type": "incremental", "retention": "2d"}]'},
            Policy(48, 2, 30, 12),
        ),
        (
            {"BACKUP_SCHEDULES": '[{"cron": "@hourly", "type": "log", "retention": 5}]'},
            Policy(120, 7, 30, 12),
        ),
        (
            {"BACKUP_SCHEDULES": '[{"cron": "@monthly", "type": "monthly", "retention": 700}]'},
            Policy(48, 7, 30, 0, 700),
        ),
        (
            {
                "BACKUP_LOG_RETENTION_HOURS": "24",
                "BACKUP_MONTHLY_RETENTION_MONTHS": "6",
                "BACKUP_INCREMENTAL_RETENTION_DAYS": "14",
            },
            Policy(24, 14, 30, 6),
        ),
    ],
)
def test_x5_which_of_the_numbers_counts(environ: Mapping[str, str], expected: Policy) -> None:
    """That of the schedule first; else BACKUP_RETENTION_DAYS for fulls, and settings of their own for the rest."""
    database, _ = configured({"DATABASE_PATH": "app.db", **environ})

    assert expected == database.policy(database.schedules)


# --- schedules -----------------------------------------------------------------------------------------


def test_s15_s16_s108_schedules_are_taken_as_printed(tmp_path: Path) -> None:
    """As text, in a file, in a replicator.yml; each names both and all of their numbers."""
    path = tmp_path / "schedules.json"
    path.write_text(json.dumps(PRINTED, indent=2))
    (tmp_path / "replicator.yml").write_text(
        f"databases: [{{path: app.db, stores: [store]}}]\nschedules: {json.dumps(PRINTED['schedules'])}\n"
    )
    expected = parse_schedules(PRINTED)
    for environ in ({"BACKUP_SCHEDULES": json.dumps(PRINTED)}, {"BACKUP_SCHEDULES_FILE": str(path)}):
        database, notices = configured({"DATABASE_PATH": "app.db", **environ})
        assert (expected, ()) == (database.schedules, notices)

    assert expected == load_config(str(tmp_path / "replicator.yml"), {}).databases[0].schedules
    assert [("daily-full-backup", 30, True, True), ("incremental-backup", 7, True, True)] == [
        (each.name, each.retention_days, each.compress, each.verify) for each in expected
    ]


def test_schedules_come_from_one_place(tmp_path: Path) -> None:
    """Text and file say the same, or both are named; a file that cannot be read is named with the reason."""
    path = tmp_path / "schedules.json"
    path.write_text(json.dumps({"schedules": []}))
    both = {"BACKUP_SCHEDULES": json.dumps(PRINTED), "BACKUP_SCHEDULES_FILE": str(path)}
    problem = str(refused(both))

    assert problem.startswith("BACKUP_SCHEDULES and BACKUP_SCHEDULES_FILE say different things")
    path.write_bytes(b"\xff\xfe")
    assert f"BACKUP_SCHEDULES_FILE: {path} is no text" == str(refused({"BACKUP_SCHEDULES_FILE": str(path)}))
    path.unlink()
    assert f"BACKUP_SCHEDULES_FILE: cannot read {path}: No such file or directory" == str(
        refused({"BACKUP_SCHEDULES_FILE": str(path)})
    )


OWN = """
databases: [{path: app.db, stores: [store]}]
schedules:
- {name: weekly, cron: "0 1 * * 0", type: full, retention: 60d}
- {name: hourly, cron: "@hourly", type: incremental}
- {name: quarter, cron: "*/15 * * * *", type: log}
"""


def crons(database: DatabaseConfig) -> dict[str, str]:
    return {each.name: each.cron for each in database.schedules}


def test_backup_schedule_says_when_fulls_are_made(tmp_path: Path) -> None:
    """And nothing else: incrementals and the log stay as the file, or the default, has them."""
    environ = {"BACKUP_SCHEDULE": "30 3 * * *"}
    database, notices = configured({"DATABASE_PATH": "app.db", **environ})

    assert {"full-backup": "30 3 * * *", "incremental-backup": "0 6,10,14,18,22 * * *"} == crons(database)
    assert ("BACKUP_SCHEDULE is taken for when full backups are made",) == notices
    assert {"full-backup": "30 3 * * *", "hourly": "@hourly", "quarter": "*/15 * * * *"} == crons(
        in_file(tmp_path, OWN, environ)
    )
    printed = {"BACKUP_SCHEDULES": json.dumps(PRINTED), "BACKUP_SCHEDULE": "0 2 * * *"}
    assert parse_schedules(PRINTED) == configured({"DATABASE_PATH": "app.db", **printed})[0].schedules


def test_backup_incremental_switches_incrementals_off(tmp_path: Path) -> None:
    """And nothing else; true is what happens anyway."""
    off, on = {"BACKUP_INCREMENTAL": "false"}, {"BACKUP_INCREMENTAL": "true"}
    database, notices = configured({"DATABASE_PATH": "app.db", **off})

    assert {"daily-full-backup": "0 2 * * *"} == crons(database)
    assert ("BACKUP_INCREMENTAL is taken for whether incremental backups are made",) == notices
    assert {"weekly": "0 1 * * 0", "quarter": "*/15 * * * *"} == crons(in_file(tmp_path, OWN, off))
    assert DEFAULT_SCHEDULES == configured({"DATABASE_PATH": "app.db", **on})[0].schedules
    assert 3 == len(in_file(tmp_path, OWN, on).schedules)


# --- encryption ----------------------------------------------------------------------------------------


def test_backup_encrypt_needs_a_key_from_somewhere(tmp_path: Path) -> None:
    """Of the environment or of the file; without any it is refused, and with one it only says so."""
    problem = refused({"BACKUP_ENCRYPT": "true"})
    file = "encryption: {key_file: the.key}\ndatabases: [{path: app.db, stores: [store]}]\n"

    assert ("BACKUP_ENCRYPT is set, and no key", True) == (
        str(problem), "replicator key generate" in str(problem.hint),
    )  # fmt: skip
    assert ("BACKUP_ENCRYPT only confirms what BACKUP_ENCRYPTION_KEY says",) == configured(
        {"DATABASE_PATH": "app.db", "BACKUP_ENCRYPT": "true", "BACKUP_ENCRYPTION_KEY": KEY}
    )[1]
    assert (
        KeySource(key_file=str(tmp_path / "the.key"))
        == in_file(tmp_path, file, {"BACKUP_ENCRYPT": "true"}).encryption
    )
    with pytest.raises(ConfigError, match=r"BACKUP_ENCRYPT says false, and `encryption` of .*app.db is set"):
        in_file(tmp_path, file, {"BACKUP_ENCRYPT": "false"})
    assert read_environment({"BACKUP_ENCRYPT": "false"}).over(DatabaseConfig("a", ())) == DatabaseConfig(
        "a", ()
    )


# --- by the Python interface ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"compression": "gzip"}, "compression"),
        ({"retention": {"full": 30}}, "retention"),
        ({"schedules": [{"name": "a"}]}, "schedules"),
        ({"log_interval": -1}, "log_interval"),
        ({"log_interval": "15m"}, "log_interval"),
        ({"key_max_age": None}, "key_max_age"),
    ],
)
def test_a_value_of_another_kind_is_refused(given: dict[str, Any], named: str) -> None:
    """At once, and not by what comes of it hours later."""
    with pytest.raises(ConfigError, match=f"`{named}`"):
        DatabaseConfig("app.db", ("store",), **given)


def test_two_databases_of_a_file_are_found_by_name_and_path(tmp_path: Path) -> None:
    """Relative to its folder; a name that nobody has finds none."""
    (tmp_path / "replicator.yml").write_text(
        "databases:\n- {path: a.db, stores: [a], name: one}\n- {path: b.db, stores: [b]}\n"
    )
    config: AgentConfig = load_config(str(tmp_path / "replicator.yml"), {})

    assert config.databases[0] == config.find("one") == config.find(str(tmp_path / "a.db"))
    assert config.databases[1] == config.find("b.db")
    assert config.find("two") is None
