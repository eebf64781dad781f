"""results.json: rewritten after every case, so that a run that is cut off keeps what it measured, and can go on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

WHOLE_CASE = "the whole case"


class ResultsFile:
    """What was measured: `rows`, `failures` of providers, the cases that are `done` or were `skipped`, and `about`."""

    def __init__(self, out: Path) -> None:
        self.path = out / "results.json"
        self.data: dict[str, Any] = {"about": {}, "ceilings": {}, "rows": [], "failures": [], "done": [], "skipped": []}
        if self.path.exists():
            self.data |= json.loads(self.path.read_text())
        if running := self.data.pop("running", None):
            self._end_of_process(*running)

    def save(self) -> None:
        """Replaces the file at once: a reader never sees half of it."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.data, indent=1))
        os.replace(new, self.path)

    def begin(self, case: str, provider: str) -> None:
        """What runs now; left in the file when the process ends in it, which is then a failure."""
        self.data["running"] = (case, provider)
        self.save()

    def end(self) -> None:
        """It returned."""
        self.data.pop("running", None)

    def _end_of_process(self, case: str, provider: str) -> None:
        self.fail(case, provider, "the process ended in it, or it did not return", fatal=True)
        if provider == WHOLE_CASE:
            self.finish(case, [])

    def is_done(self, case: str) -> bool:
        return case in self.data["done"]

    def finish(self, case: str, rows: list[dict[str, Any]]) -> None:
        """A case was measured."""
        self.data["rows"] += rows
        self.data["done"].append(case)
        if case in self.data["skipped"]:
            self.data["skipped"].remove(case)
        self.save()

    def skip(self, case: str) -> None:
        """There was no time for a case."""
        if case not in self.data["skipped"]:
            self.data["skipped"].append(case)
            self.save()

    def fail(self, case: str, provider: str, error: str, fatal: bool = False) -> None:
        """A provider did not run, or was wrong; `fatal` where it took the process along."""
        self.data["failures"].append({"case": case, "provider": provider, "error": error, "fatal": fatal})
        self.save()

    def has_failed(self, case: str, provider: str) -> bool:
        """In this case, or twice fatally in its part, which is then left to the others."""
        mine = [f for f in self.data["failures"] if f["provider"] == provider]
        fatal = [f for f in mine if f["fatal"] and f["case"].split()[0] == case.split()[0]]
        return len(fatal) >= 2 or any(f["case"] == case for f in mine)
