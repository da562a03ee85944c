"""This module tests the evaluations of sample quality and the statistics of data sets, on points in the plane."""

import json
import shutil

import numpy as np
import pytest

import score_sde as ss
from score_sde import metrics
from score_sde.jobs import draw_samples, evaluate, train, train_classifier, write_report, write_statistics
from score_sde.jobs.log import read_records
from score_sde.jobs.report.quality import differences
from score_sde.metrics import statistics
from score_sde.metrics.features import outputs_of

SAMPLES = 60


def config(**changes):
    sections = dict(
        data=dict(name="GaussianRing", batch_size=32, dir=""),
        network=dict(name="MLP", width=8, blocks=1),
        train=dict(steps=4, eval_every=0, sample_every=0, checkpoint_every=4),
        sample=dict(n=8, batch_size=16, grid=dict(name="default", n=3)),
        eval=dict(what="Kernel(n=60, features='Values')", batch_size=64),
    )
    for name, section in changes.items():
        sections[name] = sections[name] | section
    return sections


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality") / "run"
    train(config(), folder)
    return folder


@pytest.fixture
def workdir(trained, tmp_path):
    """Return a copy of the trained workdir, without samples and results."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def result(workdir, name):
    return json.loads((workdir / "eval" / f"{name}.json").read_text())


def points(workdir, folder="samples"):
    with np.load(workdir / "samples" / folder / "samples.npz") as arrays:
        return arrays["points"]


def real(split, n=None):
    """Return the first n examples of a split in the fixed random order of the metrics."""
    values = ss.data.all_examples(ss.data.GaussianRing().source(split))["values"]
    return values[np.random.default_rng(0).permutation(len(values))[:n]]


def test_every_metric_is_that_of_the_library(workdir, capsys):
    what = (
        "Kernel(n=60, features='Values'), Frechet(n=60, features='Values', blocks=5), "
        "PrecisionRecall(n=60, features='Values'), DensityCoverage(n=60, features='Values'), "
        "Memorisation(n=60, features='Values')"
    )
    evaluate(config(eval=dict(what=what)), workdir)
    fake = points(workdir, "")[:SAMPLES]
    assert len(points(workdir, "")) == SAMPLES
    assert capsys.readouterr().out.count("sampled 60 points") == 1  # one set of samples for all metrics
    test, whole = real("test", SAMPLES), real("train")
    kernel = metrics.kernel_distance(test, fake)
    assert result(workdir, "kernel")["kernel_distance"] == pytest.approx(kernel, rel=1e-6)
    assert result(workdir, "kernel")["kernel_distance_stderr"] == pytest.approx(kernel.stderr, rel=1e-6)
    frechet = result(workdir, "frechet")
    assert frechet["frechet"] == pytest.approx(metrics.frechet_distance(whole, fake), rel=1e-6)
    assert frechet["reference_n"] == len(whole) and frechet["examples"] == SAMPLES and not frechet["singular"]
    assert frechet["bias"] == pytest.approx(frechet["frechet"] - frechet["extrapolated"], rel=1e-9)
    both = metrics.precision_recall(test, fake)
    found = result(workdir, "precision_recall")
    assert (found["improved_precision"], found["improved_recall"]) == both
    assert result(workdir, "density_coverage")["coverage"] == metrics.density_coverage(test, fake).coverage
    copies = result(workdir, "memorisation")
    assert copies["median_distance"] == pytest.approx(np.median(metrics.nearest(fake, whole).distance), rel=1e-6)
    assert copies["authenticity"] == metrics.authenticity(whole, fake)


def test_nothing_is_drawn_or_computed_twice(workdir, capsys):
    """Fewer samples are the first of those that exist, and more samples begin with them."""
    evaluate(config(), workdir)
    first = points(workdir, "")
    capsys.readouterr()
    evaluate(config(eval=dict(what="Kernel(n=40, features='Values')")), workdir)
    assert "sampled" not in capsys.readouterr().out
    kernel = json.loads(next((workdir / "eval").glob("kernel-*/kernel.json")).read_text())
    assert kernel["kernel_distance"] == pytest.approx(metrics.kernel_distance(real("test", 40), first[:40]), rel=1e-6)
    evaluate(config(eval=dict(what="Kernel(n=100, features='Values')")), workdir)
    folder = next((workdir / "samples").glob("samples-*"))
    more = points(workdir, folder.name)
    assert len(more) == 100
    np.testing.assert_array_equal(more[:SAMPLES], first)
    fresh = workdir.parent / "fresh"
    train(config(), fresh)
    draw_samples(config(sample=dict(n=100)), fresh)
    np.testing.assert_allclose(points(fresh, ""), more, rtol=1e-5, atol=1e-6)
    evaluate(config(eval=dict(what="Kernel(n=100, features='Values')")), workdir)
    assert "nothing left to evaluate" in capsys.readouterr().out


def test_the_floor_needs_no_samples(workdir):
    evaluate(config(eval=dict(what="Kernel(n=60, features='Values', of='train')")), workdir)
    assert not (workdir / "samples" / "samples.npz").exists()
    expected = metrics.kernel_distance(real("test", SAMPLES), real("train", SAMPLES))
    assert result(workdir, "kernel")["kernel_distance"] == pytest.approx(expected, rel=1e-6)
    assert result(workdir, "kernel")["of"] == "train" and "sample" not in result(workdir, "kernel")


def test_statistics_of_a_data_set_are_a_reference(workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "stats.npz"
    experiment = ss.Experiment.from_config(config())
    write_statistics(experiment, path, features="Values")
    assert f"statistics of {len(real('train'))} examples of train, 2 features" in capsys.readouterr().out
    stats = statistics.read(path)
    np.testing.assert_allclose(stats.mean, real("train").mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(stats.cov, np.cov(real("train"), rowvar=False), atol=1e-6)
    assert stats.n == len(real("train")) and stats.provenance["split"] == "train"
    assert stats.provenance["features"] == metrics.Values().protocol()
    what = f"Frechet(n=60, features='Values', reference={str(path)!r}), Frechet(n=60, features='Values')"
    evaluate(config(eval=dict(what=what)), workdir)
    other = json.loads(next((workdir / "eval").glob("frechet-*/frechet.json")).read_text())
    assert result(workdir, "frechet")["frechet"] == pytest.approx(other["frechet"], rel=1e-6)
    assert result(workdir, "frechet")["reference"]["sha256"] == stats.sha256


def test_statistics_of_other_tools_are_read(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 3))
    mean, cov = x.mean(axis=0), np.cov(x, rowvar=False)
    np.savez(tmp_path / "ttur.npz", mu=mean, sigma=cov)
    np.savez(
        tmp_path / "adm.npz", arr_0=np.zeros((2, 4, 4, 3), np.uint8), mu=mean, sigma=cov, mu_s=2 * mean, sigma_s=cov
    )
    np.savez(tmp_path / "song.npz", pool_3=x.astype(np.float32))
    for name in ("ttur", "adm", "song"):
        stats = statistics.read(tmp_path / f"{name}.npz")
        np.testing.assert_allclose(stats.mean, mean, atol=1e-6)
        np.testing.assert_allclose(stats.cov, cov, atol=1e-6)
        assert stats.provenance["features"] == "unknown" and stats.n == (50 if name == "song" else None)
    np.testing.assert_allclose(statistics.read(tmp_path / "adm.npz", spatial=True).mean, 2 * mean)
    with pytest.raises(ss.InputError, match="has mu, sigma; expected mu_s and sigma_s"):
        statistics.read(tmp_path / "ttur.npz", spatial=True)


def broken_file(tmp_path, kind):
    path = tmp_path / "stats.npz"
    if kind == "pickle":
        path.write_bytes(b"\x80\x04}q\x00.")
    elif kind == "objects":
        np.savez(path, mu=np.array([{}], dtype=object), sigma=np.eye(1))
    elif kind == "shapes":
        np.savez(path, mu=np.zeros(3), sigma=np.eye(2))
    elif kind == "nan":
        np.savez(path, mu=np.full(2, np.nan), sigma=np.eye(2))
    elif kind == "nothing":
        np.savez(path, other=np.zeros(3))
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "cannot be read"),
        ("pickle", "it is no npz file"),
        ("objects", "it is no npz file of arrays, or it is damaged"),
        ("shapes", r"mu has shape \(3,\) and sigma \(2, 2\)"),
        ("nan", "expected finite"),
        ("nothing", "has other; expected mu and sigma"),
    ],
)
def test_wrong_statistics_are_refused(tmp_path, kind, words):
    with pytest.raises(ss.InputError, match=words):
        statistics.read(broken_file(tmp_path, kind))


def test_statistics_of_another_network_are_refused(workdir, tmp_path):
    statistics.write(tmp_path / "a.npz", metrics.Moments.of(np.eye(2)), {"features": {"network": "EfficientNet-Lite0"}})
    np.savez(tmp_path / "b.npz", mu=np.zeros(5), sigma=np.eye(5))
    for name, words in (("a", "features with network='EfficientNet-Lite0'"), ("b", "The reference has 5 features")):
        what = f"Frechet(n=60, features='Values', reference={str(tmp_path / name) + '.npz'!r})"
        with pytest.raises(ss.InputError, match=words):
            evaluate(config(eval=dict(what=what)), workdir)
        assert not (workdir / "eval" / "frechet.json").exists()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("Kernel(n=1)", "n of Kernel is 1"),
        ("Kernel(features='Nothing')", "metrics has no 'Nothing'; expected one of .*EfficientNetLite0.*Values"),
        ("Kernel(features='Values', of='valid')", "of is 'valid'; expected 'samples', 'train' or 'test'"),
        ("Kernel(features='Values', reference='valid')", "reference is 'valid'"),
        ("Frechet(n=10, features='Values')", "n is 10 for 10 blocks; expected at least 20 samples"),
        ("FID(n=100)", "Inception has no weights; expected the path of pt_inception-2015-12-05-6726825d.pth"),
        ("FID(n=100, features='Values')", "FID has features='Values'; expected Inception"),
        (
            "FID(n=100, weights='a.pth', resize='nearest')",
            "resize is 'nearest'; expected one of tensorflow, half_pixel",
        ),
        ("Kernel(n=60, features='Values', of='test')", "of='test', and compares with examples of the same split"),
        ("Frechet(n=60, features='Values', of='train')", "of='train', and compares with examples of the same split"),
        ("Memorisation(n=60, features='Values', of='test')", "Memorisation has of='test', and compares with examples"),
        ("Memorisation(n=60, features='Values', quantile=1.5)", "quantile is 1.5; expected a number between 0 and 1"),
        ("Kernel(n=3, features='Values')", "n of Kernel is 3"),
        ("InceptionScore(n=10, features='Values')", "n is 10 for 10 parts; expected at least 20"),
        ("PrecisionRecall(n=3, features='Values')", "n of PrecisionRecall with k=3 is 3"),
        ("InceptionScore(n=60, features='Values')", "returns features, and this metric needs 'logits'"),
        ("Kernel(n=60)", r"The data have the shape \(2,\), and real values; expected quantised images"),
        ("Frechet(n=60, features='Values', reference='no.npz')", "no.npz cannot be read"),
    ],
)
def test_wrong_metrics_are_refused(workdir, what, words):
    with pytest.raises(ss.InputError, match=words):
        evaluate(config(eval=dict(what=what)), workdir)


def test_a_network_whose_features_are_not_finite_is_refused(workdir):
    with pytest.raises(ss.InputError, match="'features' of broken are not finite for example 3"):
        evaluate(config(eval=dict(what="Kernel(n=60, features='tests.few_digits.BrokenFeatures')")), workdir)


def test_a_report_shows_the_metrics_and_where_they_differ(workdir):
    what = "Kernel(n=60, features='Values'), Kernel(n=40, features='Values'), Frechet(n=60, features='Values')"
    evaluate(config(eval=dict(what=what)), workdir)
    page = write_report(ss.Experiment.from_config(config()), workdir, draws=False).read_text()
    assert "Sample quality" in page and "kernel distance" in page and "for n to infinity" in page
    assert page.count("These results differ in n: they are not comparable.") == 1


def test_differences_of_protocols():
    assert differences([dict(reference="train"), dict(reference=dict(sha256="a"))]) == ["reference", "reference.sha256"]
    a = dict(n=5, features=dict(network="x", resize="clean"), sample=dict(seed=0))
    b = dict(n=5, features=dict(network="x", resize="tensorflow"), sample=dict(seed=1))
    assert differences([a, a]) == [] and differences([a, b]) == ["features.resize"]
    assert differences([a, b | dict(n=6)]) == ["features.resize", "n"]


@pytest.mark.slow
def test_a_classifier_of_the_digits_gives_features(tmp_path, capsys):
    """Its accuracy is that of a classifier, its scores are in its file, and other data are refused."""
    digits = dict(data=dict(name="Digits", given=("label",)), network=dict(name="MLP", width=8, blocks=1))
    accuracy = train_classifier(digits, tmp_path / "classifier.npz", passes=30)
    assert accuracy > 0.93 and f"accuracy {accuracy:.4f} on 297 test examples" in capsys.readouterr().out
    network = metrics.Classifier(str(tmp_path / "classifier.npz"))
    test = ss.data.all_examples(ss.data.Digits().source("test"))
    out = metrics.extract(network, test["values"], maximum=16)
    assert (out["logits"].argmax(axis=1) == test["label"]).mean() == pytest.approx(accuracy)
    assert network.protocol()["accuracy"] == accuracy and out["features"].shape == (297, 128)
    with pytest.raises(ss.InputError, match=r"the classifier reads images of \(8, 8, 1\)"):
        metrics.extract(network, np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ss.InputError, match="GaussianRing has no quantised images with a class 'label'"):
        train_classifier(config(), tmp_path / "other.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ss.InputError, match=r"broken.npz is not a file of --mode=classifier"):
        metrics.Classifier(str(tmp_path / "broken.npz")).protocol()


def test_metrics_in_training_are_logged(tmp_path):
    """The log has the metrics of the samples that the evaluation draws."""
    measured = dict(
        measure="Kernel(n=60, features='Values'), PrecisionRecall(n=40, features='Values')", measure_every=2
    )
    train(config(train=measured), tmp_path)
    records = [r for r in read_records(tmp_path / "train.jsonl") if "kernel_distance" in r]
    assert [r["step"] for r in records] == [2, 4] and records[-1]["kernel_distance_stderr"] > 0
    evaluate(config(), tmp_path)
    assert records[-1]["kernel_distance"] == pytest.approx(result(tmp_path, "kernel")["kernel_distance"], rel=1e-3)
    assert 0 <= records[-1]["improved_precision"] <= 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(measure="", measure_every=2), "train.measure is empty; expected metrics such as"),
        (
            dict(measure="Frechet(features='Values')", measure_every=2),
            "has no 'Frechet'; expected one of DensityCoverage, Kernel",
        ),
        (dict(measure="Kernel(n=1)", measure_every=2), "n of Kernel is 1"),
        (dict(measure="Kernel(n=60)", measure_every=-1), "train.measure_every is -1"),
        (dict(measure="Kernel(n=60), Kernel(n=40)", measure_every=2), "expected each metric once"),
        (dict(measure="Kernel(n=60, of='train')", measure_every=2), "expected each metric once, of samples"),
        (dict(measure="Kernel(n=60)", measure_every=2), r"The data have the shape \(2,\), and real values"),
    ],
)
def test_wrong_metrics_in_training_are_refused(tmp_path, settings, words):
    with pytest.raises(ss.InputError, match=words):
        train(config(train=settings), tmp_path)
    assert not (tmp_path / "train.jsonl").exists()


class Moved(ss.data.GaussianRing):
    """The points of a ring, moved in the training split."""

    moved = 0.0

    def source(self, split):
        values = ss.data.all_examples(super().source(split))["values"]
        return ss.data.Arrays(values=values + (self.moved if split == "train" else 0.0))


def test_changed_training_data_give_another_result(workdir, tmp_path, monkeypatch, capsys):
    """The digest of each split that a metric reads is part of the identity of its result and of its features."""
    data = dict(data=dict(name="tests.test_quality.Moved"))
    folder = tmp_path / "moved"
    train(config(**data), folder)
    what = dict(eval=dict(what="Frechet(n=60, features='Values', of='test')"))
    evaluate(config(**data, **what), folder)
    before = result(folder, "frechet")["frechet"]
    monkeypatch.setattr("tests.test_quality.Moved.moved", 3.0)
    evaluate(config(**data, **what), folder)
    after = json.loads(next((folder / "eval").glob("frechet-*/frechet.json")).read_text())["frechet"]
    assert after == pytest.approx(before + 18, rel=0.2) and before < 1  # a shift by (3, 3)
    assert "nothing left" not in capsys.readouterr().out


def test_features_that_were_deleted_or_interrupted_are_computed_again(workdir, monkeypatch):
    evaluate(config(), workdir)
    first = result(workdir, "kernel")["kernel_distance"]
    for path in (workdir / "samples").glob("features-*.npz"):
        path.unlink()
    (workdir / "eval" / "kernel.json").unlink()
    evaluate(config(), workdir)
    assert result(workdir, "kernel")["kernel_distance"] == first
    calls = []

    def interrupted(self, params, x):
        calls.append(x.shape)
        raise KeyboardInterrupt

    for path in [*(workdir / "samples").glob("features-*"), *(workdir / "eval" / "real").glob("features-*")]:
        path.unlink()
    (workdir / "eval" / "kernel.json").unlink()
    outputs_of.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(metrics.Values, "outputs", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config(), workdir)
    outputs_of.cache_clear()
    assert calls and not (workdir / "eval" / "kernel.json").exists()
    evaluate(config(), workdir)
    assert result(workdir, "kernel")["kernel_distance"] == first


def test_another_precision_has_features_of_its_own(workdir):
    evaluate(config(), workdir)
    evaluate(config(eval=dict(precision="default")), workdir)
    assert len(list((workdir / "samples").glob("features-*.npz"))) == 2
