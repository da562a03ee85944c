"""This module tests published networks and weights, and the job `Import`, against the public implementations.

fixtures/published/README.md describes how the fixtures were made.
"""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import score_sde as ss
from configs import celeba, cifar10, toy
from score_sde.core import keys as keys_
from score_sde.core.errors import InputError
from score_sde.experiment import Checkpoints, Experiment
from score_sde.jobs import Import, train
from score_sde.networks import DDPM, NCSN, DDPMpp, NCSNpp, NCSNv2
from score_sde.pretrained import Weights, import_weights, read_weights, tensors
from score_sde.pretrained.as_published import as_published, time_of_label
from score_sde.pretrained.match import match
from score_sde.pretrained.names import unused
from score_sde.pretrained.report import differences, read_expected

FILES = pathlib.Path(__file__).parent / "fixtures" / "published"
SHAPE = (8, 8, 3)
SMALL = dict(channels=4, multipliers=(1, 2), blocks=1, attention=(4,))
PLAIN = dict(embedding="positional")
SKIPS = dict(progressive="output_skip", progressive_input="input_skip", combine="cat")
ODD = dict(resblock="ddpm", progressive="residual", progressive_input="input_skip", fir_kernel=(1, 2, 1))
ODD |= dict(skip_rescale=False, init_scale=0.3, nonlinearity="elu", attention=(8,))
NETWORKS = {
    "ncsnpp_residual": NCSNpp(SHAPE, **SMALL),
    "ncsnpp_skips_cat": NCSNpp(SHAPE, **SMALL | SKIPS | dict(multipliers=(1, 1, 2))),
    "ncsnpp_ddpm_blocks": NCSNpp(SHAPE, **SMALL | ODD | PLAIN),
    "ncsnpp_untold": NCSNpp(
        SHAPE,
        **dict(channels=4, multipliers=(2,), blocks=1, attention=(), fir=False, progressive_input="none") | PLAIN,
        noise_conditional=False,
    ),
    "ddpmpp": DDPMpp(SHAPE, **SMALL),
    "ddpm": DDPM(SHAPE, channels=32, multipliers=(1, 1), blocks=1, attention=(4,)),
    "ncsnv2_64": NCSNv2(SHAPE, channels=2, levels=10, port=True),
    "ncsnv2_128": NCSNv2(SHAPE, channels=2, depth=128, levels=10),
    "ncsn": NCSN(SHAPE, channels=2, levels=4),
}
# The published code centres images on [0, 1] and divides by sigma inside the network. In this library the
# parametrisation does both, from the SDE.
UNIT = dict(data_range=(0.0, 1.0))
VE = ss.VE(sigma_max=50.0), ss.Score("sigma", scale_by_sigma=True, **UNIT)
VP = ss.VP(), ss.Noise()
LEVELS = {"ncsnv2_64": 10, "ncsnv2_128": 10, "ncsn": 4}
MEANINGS = dict.fromkeys(("ncsnpp_residual", "ncsnpp_skips_cat"), VE)
MEANINGS |= dict.fromkeys(("ncsnpp_ddpm_blocks", "ncsnpp_untold", "ddpmpp", "ddpm"), VP)
MEANINGS |= {
    name: (ss.SMLD(n, sigma_max=50.0), ss.Score("index", scale_by_sigma=name != "ncsn", **UNIT))
    for name, n in LEVELS.items()
}


def published(name, network=None):
    """Return the function that the network of the public implementation computes."""
    sde, meaning = MEANINGS[name]
    return as_published(sde, meaning, NETWORKS[name] if network is None else network)


CASES = [(path, NETWORKS[path.stem]) for path in sorted(FILES.glob("n*.pth")) + sorted(FILES.glob("d*.pth"))]
CASES += [(path, NETWORKS[path.stem]) for path in sorted(FILES.glob("n*.msgpack"))]
# The quick suite tests each kind of network and each kind of file once.
QUICK = ("ncsnpp_residual.pth", "ncsnpp_ddpm_blocks.msgpack", "ddpm.pth", "ncsnpp_untold.pth")


def slow_unless(quick, *values, name):
    return pytest.param(*values, id=name, marks=() if quick else pytest.mark.slow)


def expected_of(path):
    return read_expected(path.with_suffix(".npz" if path.suffix == ".pth" else ".msgpack.npz"), SHAPE)


@pytest.mark.parametrize(
    ("path", "network"), [slow_unless(case[0].name in QUICK, *case, name=case[0].name) for case in CASES]
)
def test_outputs_and_gradients_of_the_public_implementations(path, network):
    """In float32 outputs and gradients agree at all noise levels, relative to the largest value of each example."""
    weights = read_weights(path)
    matched = match(network, weights)
    count = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(network.init, keys_.stream(0, "init"))))
    assert sum(row.count for row in matched.rows) == count
    assert {row.name for row in matched.rows} | set(matched.ignored) == set(weights.params)
    items = {"params": matched.params} | ({"ema": matched.ema} if matched.ema is not None else {})
    comparisons = differences(published(path.stem, network), items, expected_of(path))
    assert {comparison.what for comparison in comparisons} == {"outputs", "input gradients"}
    assert len(comparisons) == (3 if matched.ema is not None else 2)
    assert max(comparison.relative for comparison in comparisons) < (
        1e-4 if path.stem.startswith("ncsnv2") else 2e-5
    ), comparisons


def test_every_case_is_there():
    assert len(CASES) == 12 and {path.stem for path, _ in CASES} == NETWORKS.keys()


SKIP, KERNEL = dict(skip_rescale=False), dict(fir_kernel=(1, 2, 1))


@pytest.mark.slow
def test_a_wrong_option_is_seen():
    """A wrong setting without parameters changes the outputs."""
    path = FILES / "ncsnpp_residual.pth"
    matched = match(NETWORKS["ncsnpp_residual"], read_weights(path))
    sde, meaning = VE
    wrong = [dataclasses.replace(NETWORKS["ncsnpp_residual"], **change) for change in (SKIP, KERNEL)]
    functions = [published("ncsnpp_residual", network) for network in wrong]
    functions += [
        as_published(sde, other, NETWORKS["ncsnpp_residual"])
        for other in (dataclasses.replace(meaning, data_range=None), dataclasses.replace(meaning, scale_by_sigma=False))
    ]
    for function in functions:
        (outputs, _) = differences(function, {"params": matched.params}, expected_of(path))
        assert outputs.relative > 1e-2, function


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ncsnpp_skips_cat", "ncsnpp_ddpm_blocks"])
def test_every_parameter_is_in_use_and_batches_do_not_mix(name):
    network = NETWORKS[name]
    rng = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(network.init(keys_.stream(0, "init")))
    params = jax.tree.unflatten(tree, [leaf + 0.1 * rng.standard_normal(leaf.shape).astype("f") for leaf in leaves])
    x, label = jnp.asarray(rng.standard_normal((4, *SHAPE)), jnp.float32), jnp.array([1.0, 2.0, 3.0, 0.5])
    run = jax.jit(jax.value_and_grad(lambda p, x, label: jnp.sum(network(p, x, label) ** 2)))
    apply = jax.jit(network.apply)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(
        apply(params, x[order], label[order]), apply(params, x, label)[order], rtol=2e-4, atol=1e-5
    )
    _, gradient = run(params, x, label)
    zero = [jax.tree_util.keystr(k) for k, g in jax.tree_util.tree_leaves_with_path(gradient) if not np.any(g)]
    assert all("frequencies" in parameter for parameter in zero), zero


@pytest.mark.parametrize("name", ["ncsnpp_residual", "ncsnpp_ddpm_blocks", "ncsnv2_64"])
def test_float64_agrees(name, x64):
    """Outputs in float64 agree up to the float32 rounding of angles of some 100 rad in the Fourier embedding."""
    path = FILES / f"{name}.pth"
    matched, expected = match(NETWORKS[name], read_weights(path)), expected_of(path)
    double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), matched.params)
    exact = jax.jit(published(name))(double, jnp.asarray(expected.x, jnp.float64), jnp.asarray(expected.label, float))
    assert exact.dtype == jnp.float64
    error = np.abs(exact - expected.output).reshape(len(exact), -1).max(1) / np.abs(exact).reshape(len(exact), -1).max(
        1
    )
    assert error.max() < 2e-4


def test_rectangles_and_any_channels():
    for shape in ((8, 16, 2), (16, 8, 5)):
        network = NCSNpp(shape, channels=6, multipliers=(1, 2), blocks=1, attention=(), **SKIPS)
        params = network.init(keys_.stream(0, "init"))
        assert jax.eval_shape(network.apply, params, jnp.ones((2, *shape)), jnp.ones(2)).shape == (2, *shape)


def spare(network, form="torch"):
    """Return zero weights of a network in the form that a file gives; the zeros take no memory."""
    zeros = {}
    for tensor in tensors(network):
        name, shape = (tensor.torch, tensor.torch_shape) if form == "torch" else (tensor.flax, tensor.shape)
        zeros[name] = np.broadcast_to(np.zeros((), np.float32), shape)
    return Weights(pathlib.Path("w.pth"), form, "", zeros)


NCSNPP = NCSNpp((32, 32, 3))
WRONG = [
    (dict(blocks=8), "file has 8 blocks per resolution, config says 4: use variant deep"),
    (
        dict(channels=64),
        "file has 64 channels at the first resolution, config says 128: use --config.network.channels=64",
    ),
    (dict(multipliers=(1, 2, 2)), r"channel multipliers \(1, 2, 2\), config says \(1, 2, 2, 2\)"),
    (dict(embedding="positional"), "file has a positional embedding, config says fourier"),
    (dict(progressive_input="none"), "file has progressive_input none, config says residual: use variant ddpmpp"),
    (dict(progressive="output_skip"), "file has progressive output_skip, config says none"),
    (dict(attention=(16, 8)), r"attention at the resolutions \(16, 8\), config says \(16,\)"),
    (dict(resblock="ddpm"), "file has resblock ddpm, config says biggan"),
    (dict(progressive_input="input_skip", combine="cat"), "file has progressive_input input_skip, .*combine cat"),
    (dict(shape=(32, 32, 1)), r"file has shape \(32, 32, 1\), .*: use a data set whose images have 1 channels"),
]


@pytest.mark.parametrize("form", ["torch", "flax"])
@pytest.mark.parametrize(("change", "words"), WRONG, ids=[str(list(change)) for change, _ in WRONG])
def test_a_wrong_config_is_told_by_the_field_that_differs(change, words, form):
    with pytest.raises(InputError, match=words) as caught:
        match(NCSNPP, spare(dataclasses.replace(NCSNPP, **change), form))
    assert "w.pth does not fit the config" in str(caught.value) and "\n" not in str(caught.value)


def test_the_size_of_the_images_is_told_with_the_rest():
    """The levels with attention give the image size: attention at 16, as in the config, needs images of 256 x 256."""
    large = NCSNpp((256, 256, 3), multipliers=(1, 1, 2, 2, 2, 2, 2), blocks=2, channels=64, progressive="output_skip")
    for form in ("torch", "flax"):
        with pytest.raises(InputError) as caught:
            match(NCSNPP, spare(large, form))
        for words in (
            "file has images of 256 x 256 (by its levels and attention), config says 32 x 32",
            "file has 64 channels at the first resolution, config says 128",
            "file has 2 blocks per resolution, config says 4",
            "channel multipliers (1, 1, 2, 2, 2, 2, 2), config says (1, 2, 2, 2)",
            "progressive output_skip",
            "use the config of a data set with images of 256 x 256, use --config",
        ):
            assert words in str(caught.value)
    deeper = dataclasses.replace(NCSNPP, attention=(8,))
    with pytest.raises(
        InputError, match=r"images of 64 x 64, or --config\.network\.attention='\(8,\)' for images of 32"
    ):
        match(NCSNPP, spare(deeper))
    # The image size of a network is not inferred if the sides are unequal or no powers of two.
    odd = NCSNpp((48, 32, 3), multipliers=(1, 2), channels=32)
    with pytest.raises(InputError, match=r"attention at the resolutions \(24,\), config says \(\): use --config"):
        match(odd, spare(dataclasses.replace(odd, attention=(24,))))


def test_another_family_and_what_is_unknown():
    with pytest.raises(InputError, match="file has network DDPM, config says NCSNpp: use variant ddpm"):
        match(NCSNPP, spare(DDPM((32, 32, 3))))
    odd = spare(NCSNPP)
    odd.params["all_modules.0.W"] = np.zeros(7)
    with pytest.raises(InputError, match=r"file has all_modules\.0\.W in shape \(7,\), config makes \(128,\)"):
        match(NCSNPP, odd)
    odd = spare(NCSNPP)
    odd.params["extra"] = np.zeros(7)
    with pytest.raises(InputError, match="1 tensors that the config's network does not have, such as extra"):
        match(NCSNPP, odd)
    odd = spare(NCSNPP)
    del odd.params["all_modules.1.bias"]
    with pytest.raises(InputError, match=r"no tensor all_modules\.1\.bias"):
        match(NCSNPP, odd)
    with pytest.raises(InputError, match="of which no weights are published"):
        tensors(ss.networks.MLP((2,)))
    with pytest.raises(InputError, match=r"NCSNv2 in its own way: use --config\.network\.port=False"):
        match(dataclasses.replace(NETWORKS["ncsnv2_128"], port=True), read_weights(FILES / "ncsnv2_128.msgpack"))


def test_one_port_s_names_for_two_networks():
    """DDPM and NCSN++ with DDPM blocks have the same names in a .pth file; only DDPM was published."""
    ddpm = DDPM((32, 32, 3))
    for change in (dict(fir=False, progressive_input="none", embedding="positional"), dict()):
        with pytest.raises(InputError, match="file has network DDPM, config says NCSNpp: use variant ddpm"):
            match(dataclasses.replace(NCSNPP, **change), spare(ddpm))
    blocks = NCSNpp((32, 32, 3), resblock="ddpm", fir=False, progressive_input="none", embedding="positional", blocks=3)
    with pytest.raises(InputError, match="file has 2 blocks per resolution, config says 3"):
        match(blocks, spare(ddpm))


@pytest.mark.parametrize("form", ["torch", "flax"])
@pytest.mark.parametrize("kind", [NCSNpp, DDPM])
def test_told_the_noise_level_or_not(kind, form):
    conditional, unconditional = (kind((32, 32, 3), noise_conditional=value, channels=32) for value in (True, False))
    with pytest.raises(InputError, match="file has noise_conditional True, config says False"):
        match(unconditional, spare(conditional, form))
    weights = spare(unconditional, form)
    if form == "torch":  # The port has parameters without a use.
        weights.params.update(dict.fromkeys(unused(unconditional), np.zeros((), np.float32)))
        assert set(match(unconditional, weights).ignored) == unused(unconditional)
    with pytest.raises(
        InputError, match="file has noise_conditional False, config says True: use variant unconditional"
    ):
        match(conditional, weights)


def test_refinenets_are_told_too():
    small, port = NCSNv2((32, 32, 3), channels=8), NCSNv2((32, 32, 3), channels=8, port=True)
    for change, words in (
        (dict(channels=16), "file has 16 channels at the first resolution, config says 8"),
        (dict(depth=128), "file has depth 128, config says 64"),
    ):
        for network, form in ((small, "flax"), (port, "torch")):
            with pytest.raises(InputError, match=words):
                match(network, spare(dataclasses.replace(network, **change), form))
    with pytest.raises(InputError, match="file has 7 noise levels, config says 1000"):
        match(NCSN((32, 32, 3), channels=8, levels=1000), spare(NCSN((32, 32, 3), channels=8, levels=7), "flax"))
    with pytest.raises(InputError, match="file has network NCSNv2, config says NCSNpp: use variant ncsnv2"):
        match(NCSNPP, spare(small, "flax"))
    with pytest.raises(InputError, match="file has network NCSNpp, config says NCSNv2: use variant ncsnpp"):
        match(small, spare(NCSNPP))
    # The network of 2019 has the same depth for all image sizes.
    assert NCSN((128, 128, 3)).depth == 64 and NCSNv2((128, 128, 3)).depth == 128


@pytest.mark.parametrize("name", ["ncsnpp_skips_cat", "ncsnv2_64"])
def test_bfloat16_is_near_float32(name):
    """Outputs are within 5 % in norm; bfloat16 keeps 8 bits, and the random networks have 30 layers."""
    network = dataclasses.replace(NETWORKS[name], dtype="bfloat16")
    path = FILES / f"{name}.pth"
    params, expected = match(network, read_weights(path)).params, expected_of(path)
    out = jax.jit(published(name, network))(params, jnp.asarray(expected.x), jnp.asarray(expected.label))
    assert out.dtype == jnp.float32
    for ours, theirs in zip(np.asarray(out), expected.output):
        assert 0 < np.linalg.norm(ours - theirs) < 0.05 * np.linalg.norm(theirs)


def small_config(**network):
    config = celeba.get_config("ve,ncsnpp")
    config.network.update(**SMALL | network, dropout=0.0)
    config.sde.sigma_max = 50.0
    config.data.update(size=8, crop=0, batch_size=2)
    config.train.update(eval_every=0, sample_every=0, log_every=1, checkpoint_every=1)
    return config


def adam(opt_state):
    (state,) = [s for s in jax.tree.leaves(opt_state, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")]
    return state


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ncsnpp_residual.pth"])
def test_an_import_is_a_workdir(tmp_path, name, capsys):
    """`load` returns the model of the file, and training continues from the step, average and moments of the file."""
    config, path = small_config(), FILES / name
    expect = path.with_suffix(".npz" if path.suffix == ".pth" else ".msgpack.npz")
    workdir = tmp_path / "run"
    job = Import()
    job.run(Experiment.from_config(config), workdir, weights=str(path), expect=str(expect))
    out = capsys.readouterr()
    weights, expected = read_weights(path), expected_of(path)
    assert f"step {weights.step}" in out.out and "parameters: 12,719\n" in out.out and not out.err
    report = json.loads((workdir / "parity.json").read_text())
    assert report["items"]["params"] == len(report["rows"]) == 157 and report["step"] == weights.step
    assert max(row["relative"] for row in report["differences"]) < 2e-5

    model = ss.load(workdir)
    assert model.step == weights.step and model.shape == SHAPE
    sde = model.denoiser.sde
    # The label sigma_min belongs to t = 0, which is less than t_min.
    valid = time_of_label(sde, "sigma", jnp.asarray(expected.label)) >= sde.t_min
    x, label, output = (getattr(expected, name)[valid] for name in ("x", "label", "output_ema"))
    score = model.denoiser.score(jnp.asarray(x), time_of_label(sde, "sigma", jnp.asarray(label)))
    size = np.abs(output).reshape(4, -1).max(1)
    assert (np.abs(score - output).reshape(4, -1).max(1) / size).max() < 1e-4

    with Checkpoints(workdir) as checkpoints:
        shapes = Experiment.from_config(config).state_shapes()
        restored = checkpoints.restore(weights.step, {"optimizer": shapes.optimizer})
    state = adam(restored.items["optimizer"])
    name = "all_modules.3.weight" if weights.format == "torch" else "Conv_0/kernel"
    theirs = weights.moments[1][name]
    np.testing.assert_array_equal(
        state.nu["conv_in"]["kernel"], theirs.transpose(2, 3, 1, 0) if theirs.shape[0] == 4 else theirs
    )
    assert int(state.count) == weights.adam_step

    for i in range(4):
        folder = tmp_path / "celeba" / "train"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 60 * i, np.uint8)).save(folder / f"{i}.png")
    config.data.dir = str(tmp_path)
    config.train.steps = weights.step + 2
    train(config, workdir)
    assert ss.load(workdir).step == weights.step + 2
    capsys.readouterr()
    job.run(Experiment.from_config(config), workdir, weights=str(path), expect=str(expect))
    assert capsys.readouterr().out.startswith("nothing left to import")
    with pytest.raises(InputError, match="already has checkpoints of another origin"):
        import_weights(config, workdir, FILES / "ncsnpp_skips_cat.pth")


def test_what_a_file_leaves_out_is_said(tmp_path):
    config = cifar10.get_config("vp,ddpmpp")
    config.data = dict(name="ImageFolder", dir="", size=8, centered=True, batch_size=2)
    config.network.update(SMALL)
    report = import_weights(config, tmp_path / "run", FILES / "ddpmpp.pth")
    assert report.items == {"params": 154} and report.step == 0
    text = report.text()
    for words in ("no step", "no moving average", "no optimizer's state"):
        assert words in text
    model = ss.load(tmp_path / "run")
    grid = ss.time_grid.uniform(model.denoiser.sde, 3)
    assert np.isfinite(ss.sample(model.denoiser, ss.Heun(), grid, SHAPE, n=2, seed=0).x).all()


@pytest.mark.parametrize("suffix", [".pth", ".msgpack"])
def test_moments_find_their_parameters(suffix):
    """In both formats the second moments of Adam belong to the right convolution, with the axes of this library."""
    weights = read_weights(FILES / f"ncsnpp_residual{suffix}")
    theirs = weights.moments[1]["all_modules.3.weight" if suffix == ".pth" else "Conv_0/kernel"]
    ours = match(NETWORKS["ncsnpp_residual"], weights).moments[1]["conv_in"]["kernel"]
    np.testing.assert_array_equal(ours, theirs.transpose(2, 3, 1, 0) if suffix == ".pth" else theirs)


@pytest.mark.slow
def test_outputs_that_differ_are_told(tmp_path, capsys):
    path = FILES / "ncsnpp_residual.pth"
    experiment = Experiment.from_config(small_config(skip_rescale=False))
    Import().run(experiment, tmp_path / "run", weights=str(path), expect=str(path.with_suffix(".npz")))
    err = capsys.readouterr().err
    assert err.startswith("warning: the model differs from the expected values") and err.count("\n") == 1


def test_nothing_is_written_for_what_cannot_be(tmp_path):
    workdir, good = tmp_path / "run", FILES / "ncsnpp_residual.pth"
    config = small_config()
    config.sde.sigma_max = 90.0
    with pytest.raises(InputError, match="file has sigma_max 50, config says 90"):
        import_weights(config, workdir, good)
    with pytest.raises(InputError, match="1 blocks per resolution, config says 4"):
        import_weights(small_config(blocks=4), workdir, good)
    with pytest.raises(InputError, match="--weights is missing"):
        import_weights(small_config(), workdir, None)
    with pytest.raises(InputError, match="of which no weights are published"):
        import_weights(toy.get_config(), workdir, good)
    values = np.load(good.with_suffix(".npz"))
    for name, arrays in {
        "no output": {"x": values["x"], "label": values["label"]},
        "x of shape": {"x": values["x"][:, :4], "label": values["label"], "output": values["output"]},
        "one of gradient": {name: values[name] for name in ("x", "label", "output", "gradient")},
        "4 labels": {"x": values["x"], "label": values["label"][:4], "output": values["output"]},
    }.items():
        np.savez(tmp_path / "e.npz", **arrays)
        with pytest.raises(InputError, match=name):
            import_weights(small_config(), workdir, good, tmp_path / "e.npz")
    np.savez(tmp_path / "e.npz", x=np.zeros((1, 16, 16, 3)), label=np.ones(1), output=np.zeros((1, 16, 16, 3)))
    config = small_config(blocks=4)
    config.sde.update(sigma_max=90.0, sigma_min=0.1)
    with pytest.raises(InputError, match=r"1 blocks.*sigma_max 50.*sigma_min 0\.01.*x of shape \(1, 16, 16, 3\)"):
        import_weights(config, workdir, good, tmp_path / "e.npz")  # One message states all errors.
    (tmp_path / "e.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"cannot be read as \.npz"):
        import_weights(small_config(), workdir, good, tmp_path / "e.npz")
    assert not workdir.exists()


def test_weights_that_are_not_finite(tmp_path):
    weights = read_weights(FILES / "ncsnpp_residual.msgpack")
    weights.params["Conv_0/bias"] = np.full(4, np.nan, "f")
    with pytest.raises(InputError, match=r"Conv_0/bias of the parameters is not finite"):
        match(NETWORKS["ncsnpp_residual"], weights)


def test_channels_first_will_do(tmp_path):
    path = FILES / "ncsnpp_residual.npz"
    values = np.load(path)
    first = {
        name: values[name].transpose(0, 3, 1, 2) for name in ("x", "output", "output_ema", "gradient", "cotangent")
    }
    np.savez(tmp_path / "e.npz", inputs=first.pop("x"), labels=values["label"][:, None], **first)
    ours, theirs = read_expected(tmp_path / "e.npz", SHAPE), read_expected(path, SHAPE)
    for field in dataclasses.fields(ours):
        np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name))
