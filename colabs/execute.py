"""This script executes the notebooks in place, with their outputs kept; the documentation site shows the outputs.

python colabs/execute.py --workdir=runs/digits --classifier=runs/digits_classifier --fashion=runs/fashion

The workdirs are those of `score-sde --mode=train` with the configs digits, digits:classifier and fashion_mnist.
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
WORKDIRS = {"workdir": "digits", "classifier": "digits_classifier", "fashion": "fashion"}


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
    for flag, name in WORKDIRS.items():
        parser.add_argument(f"--{flag}", default=f"runs/{name}", help=f"a trained workdir, runs/{name} by default")
    parser.add_argument("--only", default="", help="the name of one notebook, such as quickstart.ipynb")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for flag, name in WORKDIRS.items():
            workdir = pathlib.Path(getattr(options, flag))
            if not (workdir / "config.json").exists():
                parser.error(f"--{flag}={workdir} has no config.json; expected a trained workdir.")
            # The outputs show the path runs/digits, not a path of this machine.
            shutil.copytree(workdir, pathlib.Path(folder) / "runs" / name)
        for path in sorted(FOLDER.glob(options.only or "*.ipynb")):
            notebook = executed(path, pathlib.Path(folder))
            nbformat.write(notebook, path)
            print(f"{path.name}: {sum(len(cell.get('outputs', [])) for cell in notebook.cells)} outputs")


if __name__ == "__main__":
    main()
