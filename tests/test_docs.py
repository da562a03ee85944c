"""The code blocks and notebooks of the documents run, and the files that the documents name exist."""

import pathlib
import re

import nbformat
import pytest

from colabs.execute import executed
from configs import digits
from score_sde.jobs import train

ROOT = pathlib.Path(__file__).parent.parent
SLOW = ("first_run.md", "python.md", "verify.md")
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{i}", marks=[pytest.mark.slow] * (path.name in SLOW))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for i, block in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_code_block_runs_by_itself(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "<block>", "exec"), {"__name__": "block"})


def test_there_are_blocks_to_run():
    assert len(BLOCKS) >= 5


def execute(name, folder, **environment):
    """Run a notebook in a fresh kernel; return the text and the number of pictures of the outputs."""
    notebook = executed(ROOT / "colabs" / name, folder, **environment)
    return text_and_pictures(notebook)


def text_and_pictures(notebook):
    """Return the printed text of a notebook and the number of its pictures."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    return "".join(output.get("text", "") for output in outputs), pictures


@pytest.mark.parametrize(
    ("name", "count"), [("quickstart.ipynb", 6), ("likelihood.ipynb", 3), ("controllable.ipynb", 13)]
)
def test_the_notebooks_are_kept_with_outputs_of_a_trained_workdir(name, count):
    """The site shows the outputs: all pictures, no error, no warning, and no path of the machine."""
    notebook = nbformat.read(ROOT / "colabs" / name, as_version=4)
    text, pictures = text_and_pictures(notebook)
    assert pictures == count and "runs/digits: found" in text and "/tmp" not in text
    kinds = {output.output_type for cell in notebook.cells for output in cell.get("outputs", [])}
    assert kinds <= {"stream", "display_data"}
    assert "Warning" not in text and "Traceback" not in text


@pytest.mark.slow
def test_quickstart_with_a_workdir(tmp_path):
    config = digits.get_config("vp,conditional")
    config.network.update(channels=8, multipliers=(1,), blocks=1, attention=())
    config.data.update(batch_size=16)
    config.train.update(steps=2, eval_every=0, sample_every=0)
    train(config, tmp_path)
    text, pictures = execute("quickstart.ipynb", tmp_path, SCORE_SDE_WORKDIR=str(tmp_path))
    assert ": found" in text
    assert pictures == 6
    assert float(re.search(r"held-out points: (\S+) nats", text).group(1)) > -1.05  # the distribution has -0.80
    before, after, least = map(float, re.search(r"loss (\S+) -> (\S+); of the exact denoiser: (\S+)", text).groups())
    assert before > 1.3 * least and 0.99 * least < after < 1.08 * least
    assert abs(float(re.search(r"centre ([\d.]+)", text).group(1)) - 1) < 0.05


@pytest.mark.slow
def test_likelihood_in_closed_form(tmp_path):
    text, pictures = execute("likelihood.ipynb", tmp_path, SCORE_SDE_WORKDIR=str(tmp_path))
    assert "not found" in text
    assert pictures == 3
    assert float(re.search(r"largest difference: (\S+) bits/dim", text).group(1)) < 2e-3
    assert float(re.search(r"largest error ([\d.e-]+)", text).group(1)) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("trained", [True, False])
def test_controllable_generation(tmp_path, trained):
    """All sections run, on digits and on a second model, with a classifier; and without any workdir."""
    if trained:
        for name, words in (("digits", "vp"), ("classifier", "classifier"), ("fashion", "conditional")):
            config = digits.get_config(words)
            config.network.update(channels=8, multipliers=(1,), blocks=1, attention=())
            config.data.update(batch_size=16)
            config.train.update(steps=2, eval_every=0, sample_every=0)
            train(config, tmp_path / name)
    places = {f"SCORE_SDE_{name.upper()}": str(tmp_path / name) for name in ("digits", "classifier", "fashion")}
    text, pictures = execute("controllable.ipynb", tmp_path, SCORE_SDE_STEPS="20", **places)
    assert pictures == (13 if trained else 11)  # two pictures need the classifier: its accuracy, and a guided class
    assert text.count(": found") == (3 if trained else 0)
    assert "strength 0.5: 20 steps" in text and "4 windows" in text
    right = [int(share) for share in re.findall(r"(\d+)% of the samples have the class asked for", text)]
    assert len(right) == 3 and (trained or right[1] > 90)  # the mixture knows the classes


def test_the_files_that_the_documents_name_exist():
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} points to {target}"
