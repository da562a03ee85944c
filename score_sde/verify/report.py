"""This module defines questions, their answers, and the printed report."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from score_sde.core.errors import DivergenceError


class Question(NamedTuple):
    """A question is a figure to measure, and the bound of the figure.

    Attributes:
        name: what is measured.
        on: where the figure is measured, such as the name of the SDE on which a sampler is checked.
        measure: a function that returns the figure, or (figure, text on where the figure was found).
        bound: the largest allowed figure, or the smallest allowed figure if at_least.
        meaning: the meaning of a failure.
        at_least: whether the bound is the smallest allowed figure.
        needs: names of questions that must have passed with the same `on` or with on = ''; otherwise this question is
            skipped.
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
    """A check is the answer to a question.

    Attributes:
        name, on, bound, at_least: the fields of the question.
        figure: the measured figure; NaN if the measurement failed, None if the question was skipped.
        note: the meaning of a failure, or the reason for a skipped question, or where the figure was found.
    """

    name: str
    on: str
    figure: float | None
    bound: float
    at_least: bool
    note: str

    @property
    def result(self) -> str:
        """Return PASS, FAIL, or - for a skipped question."""
        if self.figure is None:
            return "-"
        passed = self.figure >= self.bound if self.at_least else self.figure <= self.bound
        return "PASS" if passed else "FAIL"


@dataclasses.dataclass(frozen=True)
class Report:
    """A report holds all checks of one object.

    Attributes:
        subject: the checked object, as text.
        kind: 'SDE', 'sampler', 'corrector' or 'parametrization'.
        checks: the checks, in the order of measurement.
        seconds: the duration of all checks in seconds.
    """

    subject: str
    kind: str
    checks: tuple[Check, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Return whether at least one check passed and no check failed."""
        results = {check.result for check in self.checks}
        return "PASS" in results and "FAIL" not in results

    @property
    def failed(self) -> tuple[str, ...]:
        """Return the names of the failed checks in order, each name once."""
        return tuple(dict.fromkeys(check.name for check in self.checks if check.result == "FAIL"))

    def to_json(self) -> str:
        """Return the report as JSON text, where a figure that is not finite is null."""
        checks = [
            dataclasses.asdict(check) | {"result": check.result, "figure": _finite(check.figure)}
            for check in self.checks
        ]
        head = {"subject": self.subject, "kind": self.kind, "passed": self.passed, "seconds": round(self.seconds, 1)}
        return json.dumps(head | {"checks": checks}, indent=2)

    def __str__(self) -> str:
        return "\n".join([f"{self.subject}, {self.kind}", *table(self.checks), summary(self)])


def ask(questions: Sequence[Question]) -> Iterator[Check]:
    """Yield the check of each question; an error is a failure, and questions that need a failed one are skipped."""
    passed: set[tuple[str, str]] = set()
    for question in questions:
        missing = [name for name in question.needs if not passed & {(name, question.on), (name, "")}]
        if missing:
            check = _check(question, None, f"skipped: needs a pass of {missing[0]!r}")
        else:
            check = _measure(question)
        if check.result == "PASS":
            passed.add((question.name, question.on))
        yield check


def _measure(question: Question) -> Check:
    try:
        measured = question.measure()
    except NotAsked as reason:
        return _check(question, None, f"skipped: {reason}")
    except DivergenceError:  # the remedy in the message, more steps, is for correct code only
        return _check(question, math.nan, f"{question.meaning} (the result is not finite)")
    except Exception as error:  # the code under test may raise any error
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
    """A measure raises `NotAsked` if the question has no meaning; the message gives the reason."""


def _check(question: Question, figure: float | None, note: str) -> Check:
    return Check(question.name, question.on, figure, question.bound, question.at_least, note)


def _finite(figure: float | None) -> float | None:
    return figure if figure is not None and math.isfinite(figure) else None


_WIDTHS = (50, 12, 9, 9, 4)


def table(checks: Sequence[Check]) -> list[str]:
    """Return the lines of a table, where the meaning of a failure has its own line."""
    lines = [line(("check", "on", "figure", "bound", "")), line(tuple("-" * width for width in _WIDTHS))]
    for check in checks:
        lines += rows(check)
    return lines


def rows(check: Check) -> list[str]:
    """Return the line of a check, and a second line with the note of a failure."""
    if check.figure is None:
        return [f"{line((check.name, check.on, '', '', ''))}  {check.note}"]
    figure, bound = f"{check.figure:.3g}", f"{'>=' if check.at_least else '<='} {check.bound:.3g}"
    found = [line((check.name, check.on, figure, bound, check.result))]
    return [*found, f"    {check.note}"] if check.result != "PASS" and check.note else found


def line(cells: Sequence[str]) -> str:
    """Return the cells as one line in columns of fixed width."""
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def summary(report: Report) -> str:
    """Return the last line of the report."""
    count = {result: sum(check.result == result for check in report.checks) for result in ("PASS", "FAIL", "-")}
    skipped = f", {count['-']} skipped" if count["-"] else ""
    outcome = "PASS" if report.passed else "FAIL"
    return f"{outcome}: {count['PASS']} passed, {count['FAIL']} failed{skipped}, in {report.seconds:.0f} s"
