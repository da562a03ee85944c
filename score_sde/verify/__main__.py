"""This module is the command line of `verify`.

python -m score_sde.verify package.module:Name [name=VALUE ...] [--json] [--on=VP,VE] [--order=2] [--mixture=JSON]
"""

from __future__ import annotations

import argparse
import json
import sys

from score_sde import data, parallel
from score_sde.core.errors import InputError
from score_sde.denoisers import Mixture
from score_sde.verify import report, target
from score_sde.verify.report import Check
from score_sde.verify.run import chosen, claimed, verify

_EXAMPLE = """{"weights": [1, 2], "means": [[0, 0], [1, 1]], "stds": [0.1, 0.2]}"""


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m score_sde.verify",
        description="Check an SDE, a sampler, a corrector or a parametrisation against closed forms. "
        "Exit status: 0 if all checks passed, 1 if a check failed, 2 if the input cannot be used.",
    )
    parser.add_argument("path", help="the class or object to check, as package.module:Name")
    parser.add_argument("arguments", nargs="*", metavar="name=VALUE", help="arguments of the class, as JSON or text")
    parser.add_argument("--json", action="store_true", help="print the report as JSON only")
    parser.add_argument("--on", metavar="SDE,...", help="check on these SDEs only, such as VP,VE")
    parser.add_argument("--order", metavar="N", help="the order of convergence that the sampler must have")
    parser.add_argument("--mixture", metavar="JSON", help=f"data instead of two Gaussians in the plane: {_EXAMPLE}")
    return parser.parse_intermixed_args(argv)


def _mixture(text: str) -> Mixture:
    try:
        given = json.loads(text)
        return Mixture(**given)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"--mixture is not a mixture: {error}; expected, for example, {_EXAMPLE}.") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"--order is {text!r}; expected a number, such as 2.") from error


def main(argv: list[str] | None = None) -> int:
    """Run the command and return the exit status."""
    options = _parse(argv)
    parallel.use_compile_cache(data.cache_dir() / "compiled")
    try:
        thing = target.resolve(options.path, options.arguments)
        kind = target.kind_of(thing)
        mixture = None if options.mixture is None else _mixture(options.mixture)
        on = None if options.on is None else options.on.split(",")
        chosen(kind, on)
        order = None if options.order is None else _number(options.order)
        claimed(kind, order)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if not options.json:
        print(f"{thing!r}, {kind}\n" + "\n".join(report.table(())), flush=True)
    found = verify(thing, mixture=mixture, on=on, order=order, tell=None if options.json else _show)
    print(found.to_json() if options.json else report.summary(found))
    return 0 if found.passed else 1


def _show(check: Check) -> None:
    print("\n".join(report.rows(check)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
