"""This module tests that all published configurations exist under both spellings, with the published figures."""

import csv
import pathlib

import numpy as np
import pytest
from PIL import Image

import score_sde as ss
from configs import celeba, celebahq, cifar10, ffhq, lsun, published
from score_sde import data
from score_sde.core.errors import InputError
from score_sde.experiment import Experiment
from score_sde.jobs.generator import Generator

FILES = [cifar10, celeba, lsun, ffhq, celebahq]
ALL = [(module, old, new) for module in FILES for old, new in module.DATA_SET.old.items()]


def test_there_are_39():
    assert len({old for _, old, _ in ALL}) == 39


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        pytest.param(*case, id=case[1], marks=() if number % 5 == 0 else pytest.mark.long)
        for number, case in enumerate(ALL)
    ],
)
def test_each_builds_under_all_its_names(module, old, new):
    config = module.get_config(new)
    for name in (published._short(old, module.DATA_SET), old, old + ".py"):
        assert module.get_config(name).to_dict() == config.to_dict(), name
    experiment = Experiment.from_config(config)
    denoiser = experiment.denoiser(experiment.param_shapes["network"])
    assert experiment.optimizers.keys() == {"network"}
    Generator.from_config(config.sample, denoiser, experiment.codec)
    continuous = "continuous" in old
    assert (experiment.sde.levels is None) == continuous
    assert config.objective.reduction == (
        "half_sum" if old.startswith("ve") and old != "ve/ffhq_ncsnpp_continuous" else "mean"
    )
    assert experiment.codec.centered == (not old.startswith("ve"))
    # The codec and the SDE determine the input of the network and the divisor of the output.
    t, x = np.asarray([experiment.sde.t_max], "f"), np.full((1, 2), 0.25, "f")
    meaning, ve = experiment.parametrization, old.startswith("ve")
    np.testing.assert_allclose(meaning.network_input(experiment.sde, x, t), -0.5 if ve else 0.25, rtol=1e-5)
    divides = ve and not old.startswith("ve/ncsn/")
    sigma = float(experiment.sde.sigma(experiment.sde.t_max)) if divides else 1.0
    np.testing.assert_allclose(meaning.output_scale(experiment.sde, t), 1 / sigma, rtol=1e-5)


with (pathlib.Path(__file__).parent / "fixtures" / "published" / "configurations.csv").open() as file:
    FIGURES = {row["configuration"]: row for row in csv.DictReader(file)}
SAMPLERS = {
    "euler_maruyama": "EulerMaruyama",
    "ancestral_sampling": "Ancestral",
    "reverse_diffusion": "ReverseDiffusion",
}
CORRECTORS = {"langevin": "Langevin", "ald": "AnnealedLangevin"}


@pytest.mark.parametrize(("module", "old", "new"), ALL, ids=[old for _, old, _ in ALL])
def test_the_figures_of_2021(module, old, new):
    """Each config has the figures of the old file, of github.com/yang-song/score_sde at commit 0acb9e0."""
    config, row = module.get_config(new), FIGURES[old]
    numbers = {
        name: float(row[name]) for name in ("rate", "ema", "warmup", "clip", "dropout", "batch", "levels", "sigma_max")
    }
    rate = config.optimizer.schedule
    assert rate.get("peak_value", rate.get("value")) == numbers["rate"]
    assert rate.get("warmup_steps", 0) == numbers["warmup"]
    assert (config.optimizer.clip or -1) == numbers["clip"]
    assert (config.optimizer.b1, config.optimizer.eps, config.seed) == (0.9, 1e-8, 42)
    assert config.averages.ema.decay == numbers["ema"] and config.data.batch_size == numbers["batch"]
    assert config.sample.grid.n == numbers["levels"] - 1 and config.sde.get("n", numbers["levels"]) == numbers["levels"]
    if old.startswith("ve"):
        assert config.sde.sigma_max == numbers["sigma_max"] and config.sde.sigma_min == 0.01
    sampler, network = config.sample.sampler, config.network
    if row["corrector"] == "none":
        assert sampler.name == SAMPLERS[row["predictor"]]
    else:
        assert (sampler.predictor or {"name": None})["name"] == SAMPLERS.get(row["predictor"])
        assert sampler.corrector.name == CORRECTORS[row["corrector"]]
        assert (sampler.corrector.snr, sampler.corrector.steps) == (float(row["snr"]), int(row["each"]))
    assert network.channels == int(row["channels"])
    if row["blocks"]:
        assert network.blocks == int(row["blocks"]) and network.dropout == numbers["dropout"]
        assert list(network.multipliers) == list(map(int, row["multipliers"].split()))
    if row["progressive"]:
        assert (network.progressive, network.progressive_input) == (row["progressive"], row["progressive_input"])


def test_what_the_networks_are_told():
    """The label is sigma, 999 t or an index, and the score is the output or -output / std (Song et al. 2021)."""
    for words, t, label in (
        ("ve,ncsnpp", 0.5, (0.01 * 50) ** 0.5),
        ("vp,ddpmpp", 0.5, 499.5),
        ("subvp,ddpm", 1.0, 999.0),
    ):
        experiment = Experiment.from_config(cifar10.get_config(words))
        assert float(experiment.parametrization.label(experiment.sde, np.float32(t))) == pytest.approx(label, rel=1e-5)
    for words, order in (("vp,ddpm,discrete", range(1000)), ("ve,ncsnpp,discrete", range(999, -1, -1))):
        experiment = Experiment.from_config(cifar10.get_config(words))
        t = np.arange(1, 1001) / 1000
        np.testing.assert_array_equal(experiment.parametrization.label(experiment.sde, t), list(order))
    x, output = np.full((1, 2), 0.3, "f"), np.full((1, 2), 2.0, "f")
    for words, expected in (("ve,ncsnpp", 2.0 / (0.01 * 50) ** 0.5), ("vp,ddpmpp", -2.0 / float(ss.VP().sigma(0.5)))):
        experiment = Experiment.from_config(cifar10.get_config(words))
        t = np.full(1, 0.5, "f")
        noise = experiment.parametrization.predict(experiment.sde, x, t, output).noise
        np.testing.assert_allclose(-noise / experiment.sde.sigma(t), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("ve,ncsnp", "'ncsnp' (ncsnpp?)"),
        ("ve,vp", "'vp' beside 've'"),
        ("ve_ncsnp_continuous", "or a name of 2021"),
        ("subvp,ddpm,discrete", "subvp has no chain"),
        ("ve,ddpm", "use ve,ddpm,discrete"),
        ("vp,ncsn", "levels of the ve chain only"),
        ("vp,ddpm,deep", "deep is for ncsnpp and ddpmpp"),
        ("ve,ncsnv2,124", "124 is for ncsn"),
        ("vp,ncsnpp,unconditional,deep,x", "'x'"),
    ],
)
def test_what_was_never_there_is_refused(variant, words):
    with pytest.raises(InputError) as caught:
        cifar10.get_config(variant)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_faces_have_no_ncsn():
    with pytest.raises(InputError, match="ncsnv2 is for 32 to 128 pixels"):
        ffhq.get_config("256,ve,ncsnv2")


def test_the_table_in_the_docs():
    """The table lists every old file with the new spelling."""
    text = (pathlib.Path(__file__).parent.parent / "docs" / "published.md").read_text()
    for module, old, new in ALL:
        assert f"| {old}.py | configs/{module.__name__.split('.')[1]}.py:{new} |" in text, old


def test_centred_and_not():
    values = np.asarray([[0, 51, 255]])
    for centered, expected in ((True, [[-1, -0.6, 1]]), (False, [[0, 0.2, 1]])):
        codec = data.QuantizedCodec((3,), 255, centered)
        x, terms = codec.encode(values, None)
        np.testing.assert_allclose(x, expected, atol=1e-6)
        np.testing.assert_array_equal(codec.quantize(codec.decode(x)), values)
        step = 3 * np.log((codec.encode(values + 1, None)[0] - x)[0, 0].item())
        np.testing.assert_allclose(terms["scale"], [step], rtol=1e-4)


def test_cifar10_from_its_binary_files(tmp_path):
    """A record is a label and three planes, as https://www.cs.toronto.edu/~kriz/cifar.html states."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    written = []
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        records = np.concatenate([rng.integers(0, 10, (4, 1)), rng.integers(0, 256, (4, 3072))], axis=1).astype(
            np.uint8
        )
        records.tofile(folder / name)
        written.append(records)
    for place in (tmp_path, folder):
        train = data.all_examples(data.CIFAR10(place).source("train"))
    assert train["values"].shape == (20, 32, 32, 3)
    record = written[2][1]  # Example 9 is in the third file.
    assert train["label"][9] == record[0]
    assert train["values"][9, 3, 7, 2] == record[1 + 2 * 1024 + 3 * 32 + 7]
    assert len(data.CIFAR10(tmp_path).source("test")) == 4
    (folder / "test_batch.bin").write_bytes(b"x" * 3073)
    with pytest.raises(InputError, match="no file of CIFAR-10"):
        data.CIFAR10(tmp_path).source("test")
    with pytest.raises(InputError, match=r"unpack cifar-10-binary\.tar\.gz"):
        data.CIFAR10(tmp_path / "elsewhere").source("train")


def test_folders_of_images(tmp_path):
    folder = tmp_path / "faces" / "train" / "deeper"
    folder.mkdir(parents=True)
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 20:60] = (10, 200, 30)  # The crop keeps the central square.
    Image.fromarray(wide).save(folder / "b.png")
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(folder / "a.png")
    source = data.ImageFolder(tmp_path, "faces", size=8).source("train")
    images = data.all_examples(source)["values"]
    assert images.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(images[0], 7)
    np.testing.assert_array_equal(images[1], np.broadcast_to([10, 200, 30], (8, 8, 3)))
    whole = data.ImageFolder(tmp_path, "faces", size=8, crop=40).source("train")[1]["values"]
    np.testing.assert_array_equal(whole, images[1])
    with pytest.raises(InputError, match="expected a side of 9 or more"):
        data.ImageFolder(tmp_path, "faces", size=8, crop=9).source("train")[0]
    (folder / "c.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"train/deeper/c.png is not a picture"):
        data.ImageFolder(tmp_path, "faces", size=8).source("train")[2]
    with pytest.raises(InputError, match=r"There are no images in .*test: put files"):
        data.ImageFolder(tmp_path, "faces").source("test")
