"""The rules of the house, held by machine: direction of imports, sizes, names, and what tests must not do.

Each rule is a function from a source tree to findings, so that the tests below can show it a planted
violation: a rule that cannot fail proves nothing.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# First name under `replicator` -> layer; every other top-level module is a part. The package itself is shell.
LAYER_OF_HEAD = {
    "core": "core",
    **dict.fromkeys(
        (
            "store",
            "source",
            "spool",
            "state",
            "marks",
            "moment",
            "files",
            "clock",
            "deadline",
            "events",
            "heap",
            "keys",
            "pulse",
            "repository",
            "slots",
        ),
        "edge",
    ),
    **dict.fromkeys(
        (
            "agent",
            "control",
            "follower",
            "introduction",
            "jobs",
            "line",
            "loop",
            "config",
            "requests",
            "scheduler",
            "status",
            "unused_keys",
            "upkeep",
            "__main__",
        ),
        "shell",
    ),
    **dict.fromkeys(("cli", "demo", "api", "web"), "shell"),
}
LAYERS = ("core", "edge", "part", "shell")  # each may import what stands before it

# What a pure function has no use for: the world, time, chance and other threads.
BANNED_IN_CORE = frozenset(
    {"asyncio", "concurrent", "fcntl", "glob", "http", "logging", "mmap", "multiprocessing", "os", "queue"}
    | {"random", "secrets", "select", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess"}
    | {"tempfile", "threading", "time", "uuid"}
)
PURE_NAMES_OF_PATHLIB = frozenset({"pathlib.PurePath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath"})

# Technology -> the only place that may import it: a folder or a file under replicator/.
HOME_OF_TECHNOLOGY = {
    "apsw": "replicator/source/",
    "watchdog": "replicator/source/watcher.py",
    "sqlite3": "replicator/demo/",
    "obstore": "replicator/store/s3",
    "paramiko": "replicator/store/sftp_",
    "google": "replicator/store/gcs.py",
    "azure": "replicator/store/azure.py",
    "tenacity": "replicator/store/retry.py",
    "cryptography": "replicator/core/",
}

LINES_OF_MODULE_MAX = 400  # stricter than the projects we learnt from; a new one can afford it
LINES_OF_FUNCTION_MAX = 60  # what fits on a screen

DRAWERS = frozenset({"util", "utils", "helper", "helpers", "manager", "managers", "common"})


@dataclass(frozen=True, slots=True)
class Finding:
    path: str
    line: int
    fault: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.fault}"


@dataclass(frozen=True)
class Module:
    """One source file; *path* is relative to the root of the tree and has forward slashes."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def is_package(self) -> bool:
        return self.path.endswith("/__init__.py")

    @property
    def name(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def layer(self) -> str:
        return layer_of(self.name)


@dataclass(frozen=True)
class SourceTree:
    root: Path

    def modules(self, folder: str) -> list[Module]:
        paths = sorted((self.root / folder).rglob("*.py"))
        return [Module(path.relative_to(self.root).as_posix(), path.read_text("utf-8")) for path in paths]

    def exists(self, module_name: str) -> bool:
        path = self.root / module_name.replace(".", "/")
        return path.is_dir() or path.with_suffix(".py").is_file()


def layer_of(module_name: str) -> str:
    _, _, below = module_name.partition(".")
    return LAYER_OF_HEAD.get(head_of(module_name), "part") if below else "shell"


def head_of(module_name: str) -> str:
    """Return the name right under `replicator`, which is one part where it is a part."""
    return module_name.split(".")[1] if "." in module_name else ""


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of all that *module* imports, `a.b` for `from a import b`.

    Wherever in the module, also what only a type checker sees, and by a literal name at run time.
    """
    for node in ast.walk(module.tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(names=names):
                base = base_of_import(module, node)
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def base_of_import(module: Module, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    above = node.level - 1 if module.is_package else node.level
    package = module.name.split(".")[: -above or None]
    return ".".join([*package, node.module] if node.module else package)


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


# --- the rules


def imports_point_inwards(source: SourceTree) -> Iterator[Finding]:
    """Shell imports parts, parts import edges, edges import core; core imports core; no part another part."""
    for module in source.modules("replicator"):
        for line, imported in imports(module):
            if imported.split(".")[0] != "replicator":
                continue
            # A name that is no module is a thing inside the module before it.
            target = imported if source.exists(imported) else imported.rpartition(".")[0] or imported
            layer = layer_of(target)
            if LAYERS.index(layer) > LAYERS.index(module.layer):
                yield Finding(module.path, line, f"{module.layer} imports {layer}: {target}")
            elif layer == module.layer == "part" and head_of(target) != head_of(module.name):
                yield Finding(module.path, line, f"a part imports another part: {target}")


def core_is_pure(source: SourceTree) -> Iterator[Finding]:
    """Core does not reach the operating system, the clock, chance or a thread, and opens nothing."""
    for module in source.modules("replicator/core"):
        for line, imported in imports(module):
            top = imported.split(".")[0]
            if top in BANNED_IN_CORE or imported == "urllib.request":
                yield Finding(module.path, line, f"core imports {top}")
            elif top == "pathlib" and imported not in PURE_NAMES_OF_PATHLIB:
                yield Finding(module.path, line, "core imports more of pathlib than its pure paths")
        for node in ast.walk(module.tree):
            match node:
                case ast.Call(func=ast.Name(id="open") | ast.Attribute(value=ast.Name(id="io"), attr="open")):
                    yield Finding(module.path, node.lineno, "core opens a file")
                case ast.Attribute(
                    value=ast.Name(id="datetime" | "date") | ast.Attribute(attr="datetime" | "date"),
                    attr="now" | "utcnow" | "today",
                ):
                    yield Finding(module.path, node.lineno, "core reads the clock")


def technologies_stay_at_home(source: SourceTree) -> Iterator[Finding]:
    """One technology, one place: apsw, watchdog and the standard sqlite3 are imported nowhere else."""
    for module in source.modules("replicator"):
        for line, imported in imports(module):
            home = HOME_OF_TECHNOLOGY.get(imported.split(".")[0])
            if home is not None and not module.path.startswith(home):
                yield Finding(module.path, line, f"{imported.split('.')[0]} belongs into {home}")


def modules_and_functions_are_short(source: SourceTree) -> Iterator[Finding]:
    """A module has at most 400 lines and a function at most 60, blank lines and docstrings included."""
    for module in source.modules("replicator"):
        if (lines := len(module.text.splitlines())) > LINES_OF_MODULE_MAX:
            yield Finding(module.path, LINES_OF_MODULE_MAX + 1, f"module of {lines} lines")
        for function in functions(module):
            if (lines := (function.end_lineno or 0) - function.lineno + 1) > LINES_OF_FUNCTION_MAX:
                yield Finding(module.path, function.lineno, f"function {function.name} of {lines} lines")


def modules_say_what_they_are_for(source: SourceTree) -> Iterator[Finding]:
    """Every module opens with a docstring."""
    for module in source.modules("replicator"):
        if not ast.get_docstring(module.tree):
            yield Finding(module.path, 1, "module without a docstring")


def modules_are_named_after_their_job(source: SourceTree) -> Iterator[Finding]:
    """No file and no folder is a drawer: utils, helpers, manager, common."""
    for module in source.modules("replicator"):
        for word in module.name.split("."):
            if word.rpartition("_")[2].lower() in DRAWERS:
                yield Finding(module.path, 1, f"{word} names no job")


def unit_tests_neither_sleep_nor_mock(source: SourceTree) -> Iterator[Finding]:
    """Tests of core and parts use a fake clock and honest fakes: no time.sleep, no unittest.mock."""
    for module in (*source.modules("tests/core"), *source.modules("tests/parts")):
        names_of_time = {"time"}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                names_of_time |= {a.asname for a in node.names if a.name == "time" and a.asname}
        for line, imported in imports(module):
            if imported.startswith("unittest.mock") or imported.split(".")[0] == "mock":
                yield Finding(module.path, line, "a test mocks")
            elif imported == "time.sleep":
                yield Finding(module.path, line, "a test sleeps")
        for node in ast.walk(module.tree):
            match node:
                case ast.Attribute(value=ast.Name(id=name), attr="sleep") if name in names_of_time:
                    yield Finding(module.path, node.lineno, "a test sleeps")
                case ast.Attribute(value=ast.Name(id="unittest"), attr="mock"):
                    yield Finding(module.path, node.lineno, "a test mocks")


Rule = Callable[[SourceTree], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    imports_point_inwards,
    core_is_pure,
    technologies_stay_at_home,
    modules_and_functions_are_short,
    modules_say_what_they_are_for,
    modules_are_named_after_their_job,
    unit_tests_neither_sleep_nor_mock,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_program_keeps(rule: Rule) -> None:
    """The real tree has no finding of any rule."""
    findings = list(rule(SourceTree(ROOT)))

    assert not findings, "\n" + "\n".join(map(str, findings))


def test_the_walk_reaches_the_program() -> None:
    """The rules are shown the real modules, so that none of them is content with an empty tree."""
    source = SourceTree(ROOT)

    assert {"replicator.core.times", "replicator.core"} <= {m.name for m in source.modules("replicator")}
    assert {"tests.core.test_times"} <= {m.name for m in source.modules("tests/core")}


# --- the rules can fail: violations planted in small trees, and what must pass beside them

SAYS = '"""What it is for."""\n'


def long_function(lines: int) -> str:
    return "def long():\n" + "    pass\n" * (lines - 1)


PLANTED: list[tuple[Rule, str, str, int]] = [
    # rule, path, text, line of the finding
    (imports_point_inwards, "replicator/core/wal.py", "import replicator.files\n", 1),
    (imports_point_inwards, "replicator/core/wal.py", "from replicator import __version__\n", 1),
    (imports_point_inwards, "replicator/core/wal.py", "\nfrom ..capture import Capture\n", 2),
    (imports_point_inwards, "replicator/store/s3.py", "from replicator.config import load\n", 1),
    (imports_point_inwards, "replicator/spool.py", "def f():\n    from replicator import ship\n", 2),
    (
        imports_point_inwards,
        "replicator/spool.py",
        "import importlib as i\ni.import_module('replicator.ship')",
        2,
    ),
    (imports_point_inwards, "replicator/ship.py", "from replicator.cli import main\n", 1),
    (imports_point_inwards, "replicator/ship.py", "from . import capture\n", 1),
    (imports_point_inwards, "replicator/restore/plan.py", "from replicator.ship import Ship\n", 1),
    (imports_point_inwards, "replicator/restore/__init__.py", "from ..ship import Ship\n", 1),
    (core_is_pure, "replicator/core/wal.py", "import os.path\n", 1),
    (core_is_pure, "replicator/core/wal.py", "from threading import Lock\n", 1),
    (core_is_pure, "replicator/core/wal.py", "from pathlib import PurePath, Path\n", 1),
    (core_is_pure, "replicator/core/wal.py", "import pathlib\n", 1),
    (core_is_pure, "replicator/core/wal.py", "def f(name):\n    return open(name)\n", 2),
    (core_is_pure, "replicator/core/wal.py", "import datetime\nx = datetime.datetime.now()\n", 2),
    (technologies_stay_at_home, "replicator/core/wal.py", "import apsw\n", 1),
    (technologies_stay_at_home, "replicator/demo/board.py", "import apsw\n", 1),
    (
        technologies_stay_at_home,
        "replicator/source/pages.py",
        "from watchdog.events import FileSystemEvent\n",
        1,
    ),
    (technologies_stay_at_home, "replicator/source/pages.py", "import sqlite3\n", 1),
    (modules_and_functions_are_short, "replicator/ship.py", "#\n" * 401, 401),
    (modules_and_functions_are_short, "replicator/ship.py", "\n" + long_function(61), 2),
    (modules_and_functions_are_short, "replicator/ship.py", "async " + long_function(61), 1),
    (modules_say_what_they_are_for, "replicator/ship.py", "import sys\n", 1),
    (modules_say_what_they_are_for, "replicator/cli/__init__.py", "", 1),
    (modules_are_named_after_their_job, "replicator/core/utils.py", SAYS, 1),
    (modules_are_named_after_their_job, "replicator/store/s3_helpers.py", SAYS, 1),
    (modules_are_named_after_their_job, "replicator/common/names.py", SAYS, 1),
    (unit_tests_neither_sleep_nor_mock, "tests/core/test_wal.py", "import time\ntime.sleep(1)\n", 2),
    (unit_tests_neither_sleep_nor_mock, "tests/parts/test_ship.py", "import time as t\nt.sleep(1)\n", 2),
    (unit_tests_neither_sleep_nor_mock, "tests/parts/test_ship.py", "from time import sleep\n", 1),
    (unit_tests_neither_sleep_nor_mock, "tests/parts/test_ship.py", "from unittest import mock\n", 1),
    (unit_tests_neither_sleep_nor_mock, "tests/parts/test_ship.py", "from unittest.mock import Mock\n", 1),
    (
        unit_tests_neither_sleep_nor_mock,
        "tests/parts/test_ship.py",
        "import unittest\nunittest.mock.Mock()\n",
        2,
    ),
]

PERMITTED: list[tuple[str, str]] = [
    ("replicator/__init__.py", SAYS),
    (
        "replicator/core/__init__.py",
        SAYS + "from datetime import datetime\nfrom pathlib import PurePosixPath\n",
    ),
    (
        "replicator/core/wal.py",
        SAYS + "from replicator.core import cursor\nimport io\n\n\n" + long_function(60),
    ),
    (
        "replicator/store/s3.py",
        SAYS + "from replicator.core.wal import Frame\nfrom replicator import clock\n",
    ),
    (
        "replicator/source/watcher.py",
        SAYS + "import apsw\nfrom watchdog.observers import Observer\nimport os\n",
    ),
    ("replicator/clock.py", SAYS + "import time\n"),
    ("replicator/restore/__init__.py", SAYS + "from .plan import Plan\nfrom ..store.s3 import S3Store\n"),
    ("replicator/restore/plan.py", SAYS + "from replicator.restore import steps\n" + "#\n" * 398),
    ("replicator/cli/__init__.py", SAYS + "from replicator import agent\nimport replicator.restore.plan\n"),
    ("replicator/demo/__init__.py", SAYS + "import sqlite3\n"),
    ("tests/core/test_wal.py", SAYS + "from replicator.clock import FakeClock\nFakeClock().sleep(1)\n"),
    ("tests/e2e/test_process.py", SAYS + "import time\ntime.sleep(1)\n"),
]


def planted_tree(root: Path, files: list[tuple[str, str]]) -> SourceTree:
    for path, text in files:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, "utf-8")
    return SourceTree(root)


@pytest.mark.parametrize(("rule", "path", "text", "line"), PLANTED)
def test_a_planted_violation_is_found(rule: Rule, path: str, text: str, line: int, tmp_path: Path) -> None:
    """Each rule names file and line of what breaks it, once."""
    modules = ("files", "ship", "capture", "config", "cli/__init__")
    bystanders = [(f"replicator/{name}.py", SAYS) for name in modules]
    source = planted_tree(tmp_path, [*bystanders, (path, text)])

    assert [(path, line)] == [(finding.path, finding.line) for finding in rule(source)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_what_is_permitted_is_not_found(rule: Rule, tmp_path: Path) -> None:
    """No rule forbids more than it says."""
    assert [] == list(rule(planted_tree(tmp_path, PERMITTED)))


def test_every_rule_has_a_planted_violation() -> None:
    """A rule without a violation to find would not be tested."""
    assert set(RULES) == {rule for rule, *_ in PLANTED}


def test_a_finding_reads_as_file_and_line() -> None:
    """A finding prints in the form that editors jump to."""
    assert "replicator/ship.py:7: a fault" == str(Finding("replicator/ship.py", 7, "a fault"))
