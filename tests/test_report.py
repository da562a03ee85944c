"""This module tests the report of a run and its parts, and opens the page in a browser if a browser is installed."""

import base64
import html.parser
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from score_sde import data, jobs
from score_sde.experiment import Experiment
from score_sde.jobs.log import Log, read_records
from score_sde.jobs.report import drawings, found
from score_sde.jobs.report.neighbours import nearest
from score_sde.jobs.report.page import Page
from tests import small_job


class Reader(html.parser.HTMLParser):
    """`Reader` collects the tags, the text and the external references of a page."""

    VOID = ("meta", "img", "br", "hr")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.outside, self.pictures, self.ids = [], set(), "", [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action", "data") and not (value or "").startswith(("data:", "#")):
                self.outside.append(value)
            if name == "src":
                self.pictures.append(base64.b64decode(value.removeprefix("data:image/png;base64,"), validate=True))
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, words):
        self.words += words


def test_a_page_is_whole_and_asks_for_nothing():
    page = Page("<script>alert(1)</script> & title")
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    page.section("A <b>")
    page.text("words", "of & from")
    page.table([["a", 1.5], ["<i>", 2]], head=["x", "y"])
    page.pictures({"one": picture, 'two "2"': picture})
    page.details("more", "{'<x>': 1}")
    for ys in ([1, 2, 3], [3, 2, 1]):
        page.plot(drawings.curves({"a <c>": ([1, 2, 3], ys)}, "x", "y"), "plot")
    reader = Reader(page.html())
    assert not reader.open
    assert not reader.outside
    assert "script" not in reader.tags and "i" not in reader.tags and "b" not in reader.tags
    assert "<script>alert(1)</script> & title" in reader.words
    assert len(reader.ids) == len(set(reader.ids))
    for content in reader.pictures:
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), picture)
    assert "default-src 'none'" in html.unescape(page.html())


def test_references_inside_a_drawing_lead_somewhere():
    svg = drawings.histogram({"a": np.arange(50.0), "b": np.arange(30.0)}, "x", "y")
    ids = set(re.findall(r'id="([^"]+)"', svg))
    used = set(re.findall(r'xlink:href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
    assert used
    assert used <= ids
    assert "<metadata" not in svg
    assert svg == drawings.histogram({"a": np.arange(50.0), "b": np.arange(30.0)}, "x", "y")


def test_neighbours_against_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    train = rng.integers(0, 256, (2500, 6, 5, 3), dtype=np.uint8)
    ours = rng.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
    ours[3] = train[77]
    close = nearest(ours, data.Examples(data.Arrays(values=train)), 3)
    search = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(train.reshape(2500, -1))
    distances, numbers = search.kneighbors(ours.reshape(20, -1))
    np.testing.assert_array_equal(close.numbers, numbers)
    np.testing.assert_allclose(close.distances, distances / np.sqrt(90), atol=1e-4)
    assert (close.searched, close.of, close.distances[3, 0]) == (2500, 2500, 0)


def test_what_a_workdir_holds(tmp_path):
    for name, step in (("eval", 10), ("eval/loss-1234", 20)):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "loss.json").write_text(json.dumps({"checkpoint_step": step, "loss": step / 10}))
    (tmp_path / "eval" / "broken").mkdir()
    (tmp_path / "eval" / "broken" / "loss.json").write_text("{")
    assert [result["loss"] for _, result in found.results(tmp_path, "loss", 20)] == [2.0]
    assert len(found.results(tmp_path, "loss", None)) == 2
    (tmp_path / "samples").mkdir()
    for step in range(0, 1000, 50):
        (tmp_path / "samples" / f"step_{step:07d}.png").write_bytes(b"png %d" % step)
    assert list(found.pictures_by_step(tmp_path, 6)) == [0, 200, 400, 550, 750, 950]
    records = [{"step": 10, "loss": 1.0, "seconds_per_step": 2.0}, {"step": 15, "seconds_per_step": 4.0}, {"step": 15}]
    assert found.curve(records, "loss") == ([10], [1.0])
    assert found.seconds(records) == 40.0


def test_a_log_keeps_the_machine_of_each_part_of_the_training(tmp_path, monkeypatch):
    for name, step in (("a", 0), ("b", 4), ("c", 4), ("d", 2)):
        monkeypatch.setattr("score_sde.jobs.log.machine", lambda name=name: name)
        with Log(tmp_path, step):
            pass
        kept = [(record["step"], record["machine"]) for record in read_records(tmp_path / "machines.jsonl")]
        assert kept == {"a": [(0, "a")], "b": [(0, "a"), (4, "b")], "c": [(0, "a"), (4, "c")]}.get(
            name, [(0, "a"), (2, "d")]
        )


@pytest.mark.slow
def test_the_report_of_a_run(tmp_path):
    config = small_job.get_config()
    config.data.dir = str(tmp_path / "data")
    config.train.update(sample_every=2)
    experiment, workdir = Experiment.from_config(config), tmp_path / "run"
    jobs.train(experiment, workdir)
    text = (workdir / "report.html").read_text()
    assert "This checkpoint has no samples" in text
    jobs.evaluate(experiment, workdir)
    jobs.draw_samples(experiment, workdir)
    jobs.Report().run(experiment, workdir)
    text = (workdir / "report.html").read_text()
    reader = Reader(text)
    assert not reader.open and not reader.outside and "script" not in reader.tags
    machine_record = json.loads((workdir / "machines.jsonl").read_text())
    assert machine_record["step"] == 0 and f"trained on{machine_record['machine']}" in reader.words
    for words in ("Samples over training", "Denoising", "Nearest training examples", "Bits per dimension", "Seconds"):
        assert words in reader.words
    assert "Not shown" not in reader.words
    bits = json.loads((workdir / "eval" / "likelihood.json").read_text())
    assert f"{bits['bits_per_dim']:.4f} ± {bits['stderr']:.4f} bits/dim" in reader.words
    for word in (bits["data"], bits["checkpoint_digest"], f"over {bits['n']} held-out examples"):
        assert word in reader.words
    jobs.Report().run(experiment, workdir)
    assert (workdir / "report.html").read_text() == text
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is not None:
        common = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        browser_run = subprocess.run(
            [*common, "--enable-logging=stderr", "--window-size=500,3000", f"--screenshot={tmp_path / 'page.png'}"]
            + [f"file://{workdir / 'report.html'}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Content Security Policy" not in browser_run.stderr
        assert np.asarray(Image.open(tmp_path / "page.png").convert("L")).std() > 10
