"""The table of docs/DAMAGE.md: what becomes of every kind of damage, written and read.

python -m tests.support.damage_table      writes it; `make damage` does
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from tests.support.damage import DAMAGES, Outcome, Victim, examine, victims
from tests.support.specimen import build

TABLE = Path(__file__).parents[2] / "docs" / "DAMAGE.md"
PLAIN, SEALED = "plain", "encrypted"
Row = tuple[str, str, str, str, str, str]
COLUMNS = ("object", "damage", "`verify`", "newest", "just before", "just after")
# Where verify sees nothing, or only a note, the reason why there is nothing to see, or nothing that anybody needs.
UNSEEN = {
    (
        "segment, newest",
        "missing",
    ): "a history that ends one commit earlier looks the same. The agent remembers what it "
    "shipped, and `restore --at-least` refuses",
    (
        "full, newest",
        "missing",
    ): "a record of it is left, and packs that nobody needs; other backups and the log lead past it",
    ("incremental, newest", "missing"): "likewise",
    (
        "log, older",
        "missing",
    ): "restore points begin again at the backup behind it; a store that was away for long has "
    "such holes, too",
    (
        "lease",
        "missing",
    ): "an agent of several stores writes under an epoch that not each of them has a lease of; who was "
    "taken over from is stopped by the fence",
    ("fence", "missing"): "no reader needs it; there are two, and the lease stops the other agent, too",
    ("fence", "one bit"): "a plain record has no digest; whoever meets it stops, whatever it says",
    ("event record", "missing"): "the backup counts as not yet proved",
    ("event record", "replayed"): "it says the same with another time; no restore reads it",
    (
        "key slot, newest",
        "one bit",
    ): "only the operator's key shows that it does not open; the key ids in it are whole",
    ("key slot, older", "missing"): "the newest slot holds all keys",
    ("key slot, older", "one bit"): "likewise",
    ("key slot, older", "replayed"): "likewise",
    ("metadata.json", "missing"): "nothing reads it but people; it is made anew with the next backup",
    ("metadata.json", "one bit"): "likewise",
    ("metadata.json", "exchanged"): "likewise",
    ("metadata.json", "replayed"): "likewise",
}


def row_of(victim: Victim, damage: str, found: Outcome) -> Row:
    return victim.kind, damage, found.verify, found.latest, found.before, found.after


def read_table(text: str) -> dict[str, dict[tuple[str, str], Row]]:
    """By variety, kind and damage."""
    found: dict[str, dict[tuple[str, str], Row]] = {}
    variety = ""
    for line in text.splitlines():
        if line.startswith("## "):
            variety = line[3:].lower()
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells[1] in DAMAGES:
            kind, damage, seen, newest, before, after = cells
            row = kind, damage, seen.partition(" (")[0], newest, before, after
            found.setdefault(variety, {})[kind, damage] = row
    return found


def write_table(rows: dict[str, list[Row]], commits: dict[str, int]) -> str:
    notes: list[str] = []

    def seen(row: Row) -> str:
        reason = UNSEEN.get(row[:2])
        if reason is None or "named" in row[2]:
            return row[2]
        if reason == "likewise":
            return f"{row[2]} ({len(notes)})"
        notes.append(reason)
        return f"{row[2]} ({len(notes)})"

    parts = [HEAD]
    for variety, found in rows.items():
        parts.append(f"## {variety.capitalize()}\n")
        parts.append("| " + " | ".join(COLUMNS) + " |")
        parts.append("|" + "---|" * len(COLUMNS))
        notes_before = len(notes)
        parts += ["| " + " | ".join((*row[:2], seen(row), *row[3:])) + " |" for row in found]
        parts.append("")
        parts += [f"({number}) {note}." for number, note in enumerate(notes, 1) if number > notes_before]
        parts.append(
            f"\nOf each row {commits[variety]} restores by txid were compared, besides those above.\n"
        )
    return "\n".join(parts)


HEAD = """# Damage

What becomes of damage to a repository, kind by kind. This page is written by `make damage`, and a test fails where
what it finds differs. Fulls, incrementals, logs and live segments of one database lie in it, each transaction in an
object of its own, two generations, two agents of which one took over, and keys that were rotated.

- **missing**: the object is gone. **cut short**: its second half is. **one bit** is turned; in a plain record, which
  has no digest, such a one that it stays a proper record. **exchanged**: it and another of its kind have changed
  places; of those that are there once, it is that of another repository. **replayed**: what lies under its name is
  authentic, written by the same agent with the same keys, in another history: one that went on from a copy that was
  put back; a backup comes with its packs.
- **`verify`** says at which level it is seen first: names, checksums or content. *named*: the very object. *named by
  what needs it*: what lies behind it, or on it. *a note*: it is told, and the exit code is 0.
- **newest**, **just before**, **just after**: what `restore` gives for no target, and for the times around the
  commits that the object carries. *the same*: the very file that an undamaged repository gives, byte by byte.
  *another way*: from another backup, and it says so. *refused, with what is left*: nothing is written, and the error
  names what to restore instead, or what to do. *older, and says so*: the last commit that can be reached, with a
  remark; `--exact` refuses that.

In no case was anything else restored.
"""


def main() -> None:
    logging.disable(logging.CRITICAL)
    rows: dict[str, list[Row]] = {}
    commits: dict[str, int] = {}
    for variety in (PLAIN, SEALED):
        with tempfile.TemporaryDirectory() as folder:
            specimen = build(Path(folder) / "specimen", sealed=variety == SEALED)
            for victim in victims(specimen):
                for damage in DAMAGES:
                    found = examine(specimen, victim, damage, Path(folder) / "out.db", thorough=True)
                    assert not found.wrong, (variety, victim.kind, damage, found.wrong)
                    rows.setdefault(variety, []).append(row_of(victim, damage, found))
                    commits[variety] = found.asked
    TABLE.write_text(write_table(rows, commits))


if __name__ == "__main__":
    main()
