"""This script executes the notebooks in place, with their outputs kept; the documentation site shows the outputs.

python colabs/execute.py --workdir=runs/digits

The workdir is that of `score-sde --config=digits --workdir=runs/digits --mode=train`.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import tempfile

import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).parent
SECONDS_PER_CELL = 600


def executed(path: pathlib.Path, folder: pathlib.Path, **environment: str) -> nbformat.NotebookNode:
    """Return a notebook, executed in a fresh kernel in a folder, with additions to the environment."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(notebook, timeout=SECONDS_PER_CELL, resources=resources, record_timing=False)
    client.execute(env=os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"} | environment)
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", default="runs/digits", help="a trained workdir of the digits")
    workdir = pathlib.Path(parser.parse_args().workdir)
    if not (workdir / "config.json").exists():
        parser.error(f"--workdir={workdir} has no config.json; expected a trained workdir of --config=digits.")
    with tempfile.TemporaryDirectory() as folder:
        # The outputs show the path runs/digits, not a path of this machine.
        shutil.copytree(workdir, pathlib.Path(folder) / "runs" / "digits")
        for path in sorted(FOLDER.glob("*.ipynb")):
            notebook = executed(path, pathlib.Path(folder))
            nbformat.write(notebook, path)
            print(f"{path.name}: {sum(len(cell.get('outputs', [])) for cell in notebook.cells)} outputs")


if __name__ == "__main__":
    main()
