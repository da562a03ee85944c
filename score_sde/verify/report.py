"""What is asked, what came out, and how it is shown."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from score_sde.core.errors import DivergenceError


class Question(NamedTuple):
    """A figure to be measured, and what it must be.

    Attributes:
        name: what is measured.
        on: where, such as the SDE under a sampler.
        measure: returns the figure, or (figure, a word on where it was found).
        bound: the most it may be, or the least.
        meaning: what it means where it is not so.
        at_least: whether the bound is the least.
        needs: names of questions that must have passed, on the same or on '', or this one is not asked.
    """

    name: str
    on: str
    measure: Callable[[], float | tuple[float, str]]
    bound: float
    meaning: str
    at_least: bool = False
    needs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Check:
    """A question's answer.

    Attributes:
        name, on, bound, at_least: of the question.
        figure: what was measured; NaN where it could not be, None where it was not asked.
        note: what it means where it failed; why it was not asked; else where the figure was found.
    """

    name: str
    on: str
    figure: float | None
    bound: float
    at_least: bool
    note: str

    @property
    def result(self) -> str:
        """PASS, FAIL, or - where it was not asked."""
        if self.figure is None:
            return "-"
        passed = self.figure >= self.bound if self.at_least else self.figure <= self.bound
        return "PASS" if passed else "FAIL"


@dataclasses.dataclass(frozen=True)
class Report:
    """All checks of one thing.

    Attributes:
        subject: what was verified, as text.
        kind: 'SDE', 'sampler', 'corrector' or 'parametrization'.
        checks: in the order in which they were made.
        seconds: how long it took.
    """

    subject: str
    kind: str
    checks: tuple[Check, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether something was checked and nothing failed."""
        results = {check.result for check in self.checks}
        return "PASS" in results and "FAIL" not in results

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of what failed, each once, in order."""
        return tuple(dict.fromkeys(check.name for check in self.checks if check.result == "FAIL"))

    def to_json(self) -> str:
        """JSON text; figures that are not finite are null."""
        checks = [
            dataclasses.asdict(check) | {"result": check.result, "figure": _finite(check.figure)}
            for check in self.checks
        ]
        head = {"subject": self.subject, "kind": self.kind, "passed": self.passed, "seconds": round(self.seconds, 1)}
        return json.dumps(head | {"checks": checks}, indent=2)

    def __str__(self) -> str:
        return "\n".join([f"{self.subject}, {self.kind}", *table(self.checks), summary(self)])


def ask(questions: Sequence[Question]) -> Iterator[Check]:
    """Measure one after the other. What raises an error fails, and what needs it is not asked."""
    passed: set[tuple[str, str]] = set()
    for question in questions:
        missing = [name for name in question.needs if not passed & {(name, question.on), (name, "")}]
        if missing:
            check = _check(question, None, f"not asked: it needs {missing[0]!r}")
        else:
            check = _measure(question)
        if check.result == "PASS":
            passed.add((question.name, question.on))
        yield check


def _measure(question: Question) -> Check:
    try:
        measured = question.measure()
    except NotAsked as reason:
        return _check(question, None, f"not asked: {reason}")
    except DivergenceError:  # its remedy, more steps, is for users of what is right
        return _check(question, math.nan, f"{question.meaning} (what it makes is not finite)")
    except Exception as error:  # whatever the code under test raises
        return _check(question, math.nan, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    figure, where = measured if isinstance(measured, tuple) else (measured, "")
    if math.isnan(figure):
        where = f"{where}, not finite" if where else "not finite"
    check = _check(question, float(figure), where)
    if check.result == "FAIL":
        note = f"{question.meaning} ({where})" if where else question.meaning
        check = dataclasses.replace(check, note=note)
    return check


class NotAsked(Exception):
    """Raised by a measure where the question has no meaning; the text says why."""


def _check(question: Question, figure: float | None, note: str) -> Check:
    return Check(question.name, question.on, figure, question.bound, question.at_least, note)


def _finite(figure: float | None) -> float | None:
    return figure if figure is not None and math.isfinite(figure) else None


_WIDTHS = (50, 12, 9, 9, 4)


def table(checks: Sequence[Check]) -> list[str]:
    """Lines of text, with what a failure means on a line of its own."""
    lines = [line(("check", "on", "figure", "bound", "")), line(tuple("-" * width for width in _WIDTHS))]
    for check in checks:
        lines += rows(check)
    return lines


def rows(check: Check) -> list[str]:
    """One check's line, and a second one where there is something to say of it."""
    if check.figure is None:
        return [f"{line((check.name, check.on, '', '', ''))}  {check.note}"]
    figure, bound = f"{check.figure:.3g}", f"{'>=' if check.at_least else '<='} {check.bound:.3g}"
    found = [line((check.name, check.on, figure, bound, check.result))]
    return [*found, f"    {check.note}"] if check.result != "PASS" and check.note else found


def line(cells: Sequence[str]) -> str:
    """Cells in columns of one width."""
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def summary(report: Report) -> str:
    """The last line."""
    count = {result: sum(check.result == result for check in report.checks) for result in ("PASS", "FAIL", "-")}
    skipped = f", {count['-']} not asked" if count["-"] else ""
    outcome = "PASS" if report.passed else "FAIL"
    return f"{outcome}: {count['PASS']} passed, {count['FAIL']} failed{skipped}, in {report.seconds:.0f} s"
