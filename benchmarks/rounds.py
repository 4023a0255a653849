"""Takes turns: every case, every setting, several rounds, the order of the settings rotated each round."""

from __future__ import annotations

import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.stats import median

if TYPE_CHECKING:  # which needs the `bench` extra; the arithmetic in here does not
    from benchmarks.setting import Setting

Row = dict[str, Any]
"""`question`, `case`, `setting`, `round`, then figures by name; or `error` instead of figures."""


@dataclass(slots=True)
class Session:
    """One call of the program: where it works, how large, and all rows so far, kept on disk as they come."""

    scratch: Path
    raw: Path
    quick: bool
    sizes_mb: tuple[int, ...]
    rounds: int
    machine: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    round: int = 0

    def pick(self, quick: Any, full: Any) -> Any:
        return quick if self.quick else full

    def take_turns(
        self,
        question: str,
        cases: Sequence[str],
        settings: Sequence[Setting] | Callable[[str], Sequence[Setting]],
        measure: Callable[[str, Setting], Row],
        *,
        rounds: int | None = None,
    ) -> None:
        for number in range(rounds or self.rounds):
            self.round = number
            for case in cases:
                each = list(settings(case) if callable(settings) else settings)
                turn = number % len(each)
                for setting in each[turn:] + each[:turn]:
                    self._measure(question, case, setting, number, measure)

    def _measure(
        self, question: str, case: str, setting: Setting, number: int, measure: Callable[[str, Setting], Row]
    ) -> None:
        row: Row = {"question": question, "case": case, "setting": setting.name, "round": number}
        began = time.monotonic()
        try:
            row |= measure(case, setting)
        except Exception as exc:
            # A side that fails is a result; what failed of ours is seen in the report, too.
            traceback.print_exc()
            row["error"] = f"{type(exc).__name__}: {exc}".replace(str(self.scratch), "…")
            row["error"] = row["error"].replace(str(Path(__file__).resolve().parent.parent), "…")[:300]
        row["took"] = round(time.monotonic() - began, 1)
        self.rows.append(row)
        self.save()
        figures = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
        print(json.dumps(figures), file=sys.stderr, flush=True)

    def save(self) -> None:
        self.raw.parent.mkdir(parents=True, exist_ok=True)
        document = {"machine": self.machine, "quick": self.quick, "rounds": self.rounds, "rows": self.rows}
        self.raw.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


@dataclass(frozen=True, slots=True)
class Medians:
    """The rows of a session, summed up: the median of each figure over the rounds."""

    rows: Sequence[Row]

    def cases(self, question: str) -> list[str]:
        return list(dict.fromkeys(row["case"] for row in self.rows if row["question"] == question))

    def settings(self, question: str, case: str) -> list[str]:
        found = [r["setting"] for r in self.rows if r["question"] == question and r["case"] == case]
        return sorted(set(found), key=found.index)

    def get(self, question: str, case: str, setting: str, figure: str) -> float:
        """NaN where nothing was measured."""
        values = self._values(question, case, setting, figure)
        return median(values) if values else math.nan

    def worst(self, question: str, case: str, setting: str, figure: str) -> float:
        """The largest of all rounds, for what must not happen once; NaN where nothing was measured."""
        return max(self._values(question, case, setting, figure), default=math.nan)

    def _values(self, question: str, case: str, setting: str, figure: str) -> list[float]:
        return [
            float(row[figure])
            for row in self.rows
            if (row["question"], row["case"], row["setting"]) == (question, case, setting) and figure in row
        ]

    def count(self, question: str, case: str, setting: str) -> int:
        return sum(
            (row["question"], row["case"], row["setting"]) == (question, case, setting) and "error" not in row
            for row in self.rows
        )

    def errors(self) -> list[str]:
        return [
            f"{r['question']}, {r['case']}, {r['setting']}: {r['error']}" for r in self.rows if "error" in r
        ]
