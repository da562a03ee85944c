"""A module imports from strictly lower floors (docs/architecture.md), and freely inside its own package."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent

FLOORS = {
    "core": 0,
    "sde": 1,
    "networks": 1,
    "readers": 1,
    "parallel": 1,
    "config": 1,
    "plots": 1,
    "data": 2,
    "metrics": 2,
    "denoisers": 3,
    "ode": 4,
    "sampling": 5,
    "losses": 6,
    "likelihood": 6,
    "inverse": 6,
    "editing": 7,
    "nongaussian": 7,
    "experiment": 8,
    "verify": 8,
    "pretrained": 9,
    "jobs": 10,
    "fitting": 11,
    "configs": 12,
    "command": 12,
}


def imported_rooms(path: pathlib.Path) -> set[str]:
    """Return the top-level names under score_sde that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "score_sde":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("score_sde."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("score_sde.")}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative imports hide the floor"
    return names


MODULES = sorted(p for p in (ROOT / "score_sde").rglob("*.py") if p != ROOT / "score_sde" / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=[str(p.relative_to(ROOT)) for p in MODULES])
def test_imports_point_down(path):
    package = path.relative_to(ROOT / "score_sde").parts[0].removesuffix(".py")
    assert package in FLOORS, f"{package} has no floor: give it one here and in docs/architecture.md"
    for other in imported_rooms(path) - {package}:
        assert FLOORS[other] < FLOORS[package], (
            f"{path.name} on floor {FLOORS[package]} imports {other} from {FLOORS[other]}"
        )


def test_the_check_sees_an_upward_import(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from score_sde import losses\n    import score_sde.jobs.sample\n")
    assert imported_rooms(bad) == {"losses", "jobs"}


def test_flax_stays_in_the_networks_and_configs_at_the_top():
    """Only networks/ imports flax, and the mathematics imports no config."""
    for path in MODULES:
        package = path.relative_to(ROOT / "score_sde").parts[0].removesuffix(".py")
        text = path.read_text()
        assert package == "networks" or not re.search(r"^\s*(import|from) flax", text, re.MULTILINE), path
        assert FLOORS[package] >= 6 or package == "config" or "ml_collections" not in text, path


def test_the_table_in_the_docs_is_this_one():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for package, floor in FLOORS.items():
        row = next((line for line in text.splitlines() if line.startswith(f"| {floor} |")), "")
        assert f"`{package}" in row, f"docs/architecture.md does not show {package} on floor {floor}"


def test_what_is_listed_as_slow_is_there():
    """Every test that tests/slow.txt names exists; a renamed test would otherwise become quick unnoticed."""
    for line in (ROOT / "tests" / "slow.txt").read_text().splitlines():
        mark, _, node = line.partition(" ")
        file, _, name = node.partition("::")
        assert mark in ("slow", "long")
        assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(), line


def test_files_and_functions_stay_small():
    for path in MODULES:
        source = path.read_text()
        assert source.count("\n") <= 320, f"{path} has grown"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                body = node.end_lineno - node.body[0].lineno
                assert body <= 60, f"{path}: {node.name} has {body} lines"
