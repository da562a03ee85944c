"""This module tests networks: published parameter counts, layers against NumPy, and independence of examples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from score_sde.core import keys as keys_
from score_sde.networks import DDPM, MLP, DDPMpp, NCSNpp, embeddings, fold, layers, resample


def count(network):
    shapes = jax.eval_shape(network.init, keys_.stream(0, "init"))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


FACES = dict(blocks=2, multipliers=(1, 1, 2, 2, 2, 2, 2), progressive="output_skip", progressive_input="input_skip")
LARGE = FACES | dict(channels=16, multipliers=(1, 2, 4, 8, 16, 32, 32, 32), blocks=1)
PUBLISHED = [
    (NCSNpp((32, 32, 3)), 62_758_915),
    (NCSNpp((32, 32, 3), embedding="positional"), 62_693_251),
    (NCSNpp((32, 32, 3), blocks=8), 107_587_075),
    (DDPMpp((32, 32, 3)), 61_804_419),
    (DDPMpp((32, 32, 3), blocks=8), 106_632_579),
    (NCSNpp((32, 32, 3), embedding="positional", fir=False, progressive_input="none"), 61_804_419),
    (DDPM((32, 32, 3)), 35_218_947),
    (NCSNpp((64, 64, 3), embedding="positional"), 62_693_251),
    (NCSNpp((256, 256, 3), **FACES), 65_574_549),
    (NCSNpp((1024, 1024, 3), **LARGE), 105_785_896),
]


@pytest.mark.parametrize(("network", "published"), PUBLISHED, ids=[str(n) for _, n in PUBLISHED])
def test_parameter_counts(network, published):
    """Each network has as many parameters as the network of Song et al. 2021 in their PyTorch port."""
    assert count(network) == published


THREE = {"label": ss.Label(3)}


def small(shape=(8, 8, 1), **options):
    settings = dict(channels=16, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.0) | options
    return DDPMpp(shape, **settings)


def random_params(network, seed=0):
    """Return parameters that are not nearly zero, so that every path of the network carries signal."""
    params = network.init(keys_.stream(seed, "init"))
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(treedef, [leaf + 0.1 * rng.standard_normal(leaf.shape).astype("f") for leaf in leaves])


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        pytest.param((16, 8, 3), {"multipliers": (1, 2, 2), "attention": (8,)}, marks=pytest.mark.slow),
        pytest.param((6, 10, 2), {"embedding": "fourier", "channels": 20}, marks=pytest.mark.slow),
        ((4, 4, 5), {"multipliers": (1,), "conditions": THREE, "channels": 9}),
    ],
)
def test_shapes_and_gradients(shape, options):
    network = small(shape, **options)
    params = random_params(network)
    assert isinstance(params, dict)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, *shape)), jnp.float32)
    label = jnp.array([0.0, 1.0, 500.0])
    assert jax.eval_shape(network.apply, params, x, label).shape == x.shape

    gradient = jax.jit(jax.grad(lambda p: jnp.sum(network.apply(p, x, label) ** 2)))(params)
    zero = [jax.tree_util.keystr(k) for k, g in jax.tree_util.tree_leaves_with_path(gradient) if not np.any(g)]
    fixed = [name for name in zero if "frequencies" in name]
    assert zero == fixed  # The Fourier frequencies are constants.
    assert bool(fixed) == (options.get("embedding") == "fourier")


@pytest.mark.slow
def test_examples_do_not_know_each_other():
    network = small(dropout=0.3)
    params, keys = random_params(network), jax.random.split(jax.random.key(0), 6)
    x = jax.random.normal(jax.random.key(1), (6, 8, 8, 1))
    label = jnp.linspace(0, 999, 6)
    order = np.array([4, 0, 5])
    apply = jax.jit(network.apply)
    whole = apply(params, x, label, keys=keys)
    part = apply(params, x[order], label[order], keys=keys[order])
    np.testing.assert_allclose(part, whole[order], rtol=1e-4, atol=1e-5)
    assert not np.allclose(whole, apply(params, x, label), atol=1e-3)  # Dropout is active with keys only.


def test_dropout_keeps_the_mean_at_its_rate():
    x = jnp.ones((4000, 5))
    kept = np.asarray(layers.dropout(x, 0.2, jax.random.split(jax.random.key(0), 4000), layer=3))
    np.testing.assert_allclose(np.unique(kept), [0, 1.25], rtol=1e-5)  # The rate is rounded to 16 bits.
    assert abs((kept == 0).mean() - 0.2) < 4 * np.sqrt(0.16 / kept.size)
    other = np.asarray(layers.dropout(x, 0.2, jax.random.split(jax.random.key(0), 4000), layer=4))
    assert not np.array_equal(kept, other)


def test_random_halves_of_words():
    """The halves are uniform and uncorrelated, and the halves of an example depend on the key of the example only."""
    keys = jax.random.split(jax.random.key(1), 300)
    bits = np.asarray(keys_.halves_of_words(keys, (3, 111)))
    assert bits.dtype == np.uint16 and bits.shape == (300, 3, 111)
    n = bits.size
    for bins in (bits >> 12, bits & 15):  # A chi-squared of 15 degrees of freedom has mean 15 and deviation 5.5.
        counts = np.bincount(bins.ravel(), minlength=16)
        assert ((counts - n / 16) ** 2 / (n / 16)).sum() < 15 + 5 * 5.5
    flat = (bits.reshape(300, -1) - 32767.5) / (65536 / np.sqrt(12))
    for shift in (1, 167):  # Shift 1 pairs neighbours; shift 167 pairs the halves of a word.
        assert abs((flat[:, shift:] * flat[:, :-shift]).mean()) < 4 / np.sqrt(n)
    assert abs((flat[1:] * flat[:-1]).mean()) < 4 / np.sqrt(n)
    np.testing.assert_array_equal(keys_.halves_of_words(keys[7:9], (3, 111)), bits[7:9])
    assert keys_.halves_of_words(keys[:2], (1,)).shape == (2, 1)


def test_an_absent_class_is_the_networks_own_none():
    network = small(conditions=THREE)
    params = random_params(network)
    x, t, apply = jnp.ones((2, 8, 8, 1)), jnp.ones(2), jax.jit(network.apply)
    label = jnp.array([0, 1])
    none = apply(params, x, t)
    given = apply(params, x, t, {"label": label})
    assert not np.allclose(given, none, atol=1e-3)
    absent = {"label": label, "absent": {"label": jnp.array([True, False])}}
    np.testing.assert_allclose(apply(params, x, t, absent), jnp.stack([none[0], given[1]]), rtol=1e-6)
    other = ss.Conditions(label=ss.Label(3), depth=ss.Condition(shape=(8, 8, 1)))
    with pytest.raises(
        ss.InputError, match="DDPMpp reads 'label', a Label, and vectors of numbers; conditions has depth"
    ):
        small(conditions=other)


@pytest.mark.slow
def test_float64_agrees(x64):
    network = small()
    params = random_params(network)
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 1))
    t = np.array([3.0, 700.0])
    apply = jax.jit(network.apply)
    exact = apply(jax.tree.map(lambda p: p.astype(jnp.float64), params), jnp.asarray(x), jnp.asarray(t))
    assert exact.dtype == jnp.float64
    single = apply(params, jnp.asarray(x, jnp.float32), jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(single, exact, rtol=2e-3, atol=2e-4 * np.abs(exact).max())


def test_equal_networks_share_a_program(compiles):
    params = random_params(small())
    x, t = jnp.ones((2, 8, 8, 1)), jnp.ones(2)
    run = jax.jit(lambda network, params: network(params, x, t), static_argnums=0)
    other = jax.tree.map(lambda p: p + 1, params)
    run(small(), params)
    before = len(compiles)
    run(small(), other)
    assert len(compiles) == before


@pytest.mark.slow
def test_initialisation():
    network = small(channels=64, conditions={"label": ss.Label(4)})
    params = network.init(keys_.stream(3, "init"))
    again, other = network.init(keys_.stream(3, "init")), network.init(keys_.stream(4, "init"))
    jitted = jax.jit(network.init)(keys_.stream(3, "init"))
    for a, b, c in zip(jax.tree.leaves(params), jax.tree.leaves(again), jax.tree.leaves(jitted)):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    kernel = np.asarray(params["down0_block0"]["conv_in"]["kernel"])
    assert kernel.shape == (3, 3, 64, 64)
    variance = 1 / (9 * 64)  # The variance of the layers is 1 / fan_avg.
    assert abs(kernel.var() / variance - 1) < 4 * np.sqrt(0.8 / kernel.size)  # A uniform distribution has kurtosis 1.8.
    assert np.abs(kernel).max() <= np.sqrt(3 * variance)
    assert np.abs(params["conv_out"]["kernel"]).max() < 1e-4
    assert not np.array_equal(kernel, other["down0_block0"]["conv_in"]["kernel"])
    assert not np.array_equal(kernel, params["middle_block0"]["conv_in"]["kernel"][:, :, :64, :64])


def test_positional_embedding_against_its_formula():
    label = np.array([0.0, 1.0, 250.5])
    embedding = embeddings.positional_embedding(jnp.asarray(label, jnp.float32), 8)
    frequencies = 10_000.0 ** -(np.arange(4) / 3)
    angles = label[:, None] * frequencies
    np.testing.assert_allclose(embedding, np.hstack([np.sin(angles), np.cos(angles)]), atol=2e-5)
    assert embeddings.positional_embedding(jnp.ones(2), 7).shape == (2, 7)


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (16, 4), (20, 5), (9, 1), (128, 32), (130, 26), (384, 32)])
def test_group_norm(channels, groups):
    from flax import nnx

    norm = layers.group_norm(channels, nnx.Rngs(0))
    assert norm.num_groups == groups
    x = np.random.default_rng(0).normal(3.0, 2.0, (2, 4, 4, channels)).astype(np.float32)
    split = x.reshape(2, 16, groups, -1)
    mean, var = split.mean(axis=(1, 3), keepdims=True), split.var(axis=(1, 3), keepdims=True)
    expected = ((split - mean) / np.sqrt(var + 1e-6)).reshape(x.shape)
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, atol=2e-4)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 2e-5), ("bfloat16", 2e-2)])
def test_group_norm_and_its_gradients_against_flax(dtype, bound):
    from flax import nnx

    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1.0, 2.0, (2, 6, 4, 20)), dtype)
    cotangent = jnp.asarray(rng.normal(size=x.shape), dtype)
    results = []
    for norm in (layers.group_norm(20, nnx.Rngs(0)), nnx.GroupNorm(20, num_groups=5, epsilon=1e-6, rngs=nnx.Rngs(0))):
        norm.scale[...], norm.bias[...] = (jnp.asarray(np.random.default_rng(s).normal(size=20)) for s in (1, 2))
        graph, params = nnx.split(norm)

        def apply(params, x, graph=graph):
            return nnx.merge(graph, params)(x).astype(dtype)

        out, back = jax.vjp(apply, params, x)
        results.append([out, *jax.tree.leaves(back(cotangent))])
    for ours, theirs in zip(*results, strict=True):
        ours, theirs = (np.asarray(array, np.float64) for array in (ours, theirs))
        assert np.abs(ours - theirs).max() < bound * np.abs(theirs).max()


def test_resampling():
    x = jnp.asarray(np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3))
    np.testing.assert_allclose(resample.downsample(resample.upsample(x)), x, rtol=1e-6)
    np.testing.assert_array_equal(resample.upsample(x), np.repeat(np.repeat(x, 2, axis=1), 2, axis=2))
    np.testing.assert_allclose(resample.downsample(x)[0, 0, 0], np.asarray(x)[0, :2, :2].mean(axis=(0, 1)), rtol=1e-6)


def test_attention_against_numpy():
    from flax import nnx

    attention = layers.Attention(4, nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for name in ("query", "key", "value", "out"):
        getattr(attention, name).kernel[...] = jnp.asarray(rng.standard_normal((4, 4)), jnp.float32)
    x = rng.standard_normal((2, 2, 3, 4)).astype(np.float32)
    flat = x.reshape(2, 6, 4)
    h = (flat - flat.mean(axis=(1, 2), keepdims=True)) / np.sqrt(flat.var(axis=(1, 2), keepdims=True) + 1e-6)
    q, k, v = (h @ np.asarray(getattr(attention, name).kernel[...]) for name in ("query", "key", "value"))
    logits = np.exp(q @ k.transpose(0, 2, 1) / 2)
    mixed = logits / logits.sum(axis=-1, keepdims=True) @ v @ np.asarray(attention.out.kernel[...])
    np.testing.assert_allclose(
        attention(jnp.asarray(x)), (x + mixed.reshape(x.shape)) / np.sqrt(2), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": (9, 8, 1)}, ["(9, 8, 1)", "divisible by 2"]),
        ({"embedding": "sundial"}, ["'sundial'", "fourier"]),
        ({"dropout": 1.0}, ["1.0", "[0, 1)"]),
        ({"blocks": 0}, ["blocks=0"]),
    ],
)
def test_bad_settings_are_refused(options, words):
    with pytest.raises(ss.InputError) as caught:
        small(**options)
    assert all(word in str(caught.value) for word in words)


def test_the_mlp_by_hand():
    """The MLP agrees with NumPy, reads classes, draws dropout from the keys, and refuses bad settings."""
    network = MLP((2, 3), width=8, octaves=2)
    params = random_params(network)
    x, label = np.random.default_rng(0).standard_normal((4, 2, 3)).astype("f"), np.asarray([0.0, 1.0, 7.0, 999.0], "f")

    def dense(at, h):
        return h @ np.asarray(at["kernel"]) + np.asarray(at["bias"])

    def swish(h):
        return h / (1 + np.exp(-h))

    flat = x.reshape(4, 6)
    h = dense(
        params["inputs"], np.concatenate([flat, *(f(k * flat) for f in (np.sin, np.cos) for k in (1, 2))], axis=1)
    )
    time = dense(params["embedding"]["hidden"], np.asarray(embeddings.positional_embedding(jnp.asarray(label), 2)))
    time = dense(params["embedding"]["out"], swish(time))
    for i in range(3):
        inner = swish(dense(params["first"][i], swish(h + time)))
        h = (h + dense(params["second"][i], inner)) / np.sqrt(2)
    expected = dense(params["out"], swish(h)).reshape(x.shape)
    np.testing.assert_allclose(network(params, x, label), expected, rtol=1e-4, atol=1e-5)

    network = MLP((2,), conditions=THREE, width=8, dropout=0.5)
    params, keys = random_params(network), jax.random.split(jax.random.key(0), 4)
    x = jnp.ones((4, 2))
    cond = {"label": jnp.asarray([0, 1, 2, 0]), "absent": {"label": jnp.arange(4) == 3}}
    out = network(params, x, label[:1].repeat(4), cond)
    assert len(np.unique(np.asarray(out)[:, 0])) == 4  # The inputs are three classes and an absent class.
    np.testing.assert_allclose(network(params, x, label[:1].repeat(4))[0], out[3], rtol=1e-6)
    noisy = network(params, x, label, cond, keys=keys)
    np.testing.assert_allclose(
        network(params, x[1:], label[1:], jax.tree.map(lambda c: c[1:], cond), keys=keys[1:]), noisy[1:], rtol=1e-5
    )
    for bad in ({"width": 6}, {"blocks": 0}, {"octaves": -1}, {"embedding": "none"}, {"dropout": 1.0}):
        with pytest.raises(ss.InputError, match=str(next(iter(bad.values())))):
            MLP((2,), **bad)


TINY = dict(channels=8, multipliers=(1,), attention=(8,))
NETWORKS = [
    small(embedding="fourier", dropout=0.2, conditions=THREE, **TINY),
    MLP((6,), THREE, width=32, octaves=2, dropout=0.2),
]


def value_and_gradient(network, params):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((4, *network.shape)), jnp.float32)
    label, keys = jnp.array([0.001, 3.0, 500.0, 999.0]), keys_.examples(keys_.stream(0, "init"), np.arange(4))
    cond = {"label": jnp.array([0, 1, 2, 0]), "absent": {"label": jnp.arange(4) == 3}}

    def loss(params):
        return jnp.mean(network.apply(params, x, label, cond, keys=keys) ** 2)

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    _, backward = jax.eval_shape(lambda p: jax.vjp(loss, p), params)
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))
    return float(value), np.concatenate([np.ravel(g) for g in jax.tree.leaves(gradient)]), kept


@pytest.mark.parametrize(
    "network", [pytest.param(NETWORKS[0], marks=pytest.mark.slow), NETWORKS[1]], ids=["ddpmpp", "mlp"]
)
def test_rematerialisation_keeps_less_and_changes_nothing(network):
    """Rematerialisation reduces the bytes that the gradient keeps, and changes neither the loss nor the gradient."""
    params = random_params(network)
    # The backward pass needs the parameters in every case.
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    plain, dots, full = (
        value_and_gradient(dataclasses.replace(network, remat=remat), params) for remat in ("none", "dots", "full")
    )
    for other in (dots, full):
        assert other[0] == pytest.approx(plain[0], rel=1e-6)
        np.testing.assert_allclose(other[1], plain[1], atol=2e-6 * np.abs(plain[1]).max())
    assert full[2] < dots[2] < plain[2]
    assert full[2] - size < 0.35 * (plain[2] - size)


@pytest.mark.parametrize(
    "network", [pytest.param(NETWORKS[0], marks=pytest.mark.slow), NETWORKS[1]], ids=["ddpmpp", "mlp"]
)
def test_bfloat16_is_near_float32(network):
    """In bfloat16 the loss is within 2 % and the gradient within 10 % in norm, for time labels from 0.001 to 999."""
    params = random_params(network)
    low = dataclasses.replace(network, dtype="bfloat16")
    exact, rounded = (value_and_gradient(variant, params) for variant in (network, low))
    assert rounded[1].dtype == np.float32
    assert rounded[0] == pytest.approx(exact[0], rel=0.02) and rounded[0] != exact[0]
    assert np.linalg.norm(rounded[1] - exact[1]) < 0.1 * np.linalg.norm(exact[1])
    x, label = jnp.ones((2, *network.shape)), jnp.array([1.0, 999.0])
    text = jax.jit(low.apply).lower(params, x, label).as_text()
    products = [
        line for line in text.splitlines() if "stablehlo.convolution" in line or "stablehlo.dot_general" in line
    ]
    assert products and not [line for line in products if line.rstrip().endswith("f32>")]
    assert low.apply(params, x, label).dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "float16"}, "expected one of float32, bfloat16"),
        ({"remat": "all"}, "expected one of none, dots, full"),
    ],
)
def test_unknown_precisions_and_policies(change, words):
    with pytest.raises(ss.InputError, match=words):
        small(**change)


def test_squares_of_pixels_become_channels_and_pixels_again():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    folded = np.asarray(fold.fold(jnp.asarray(x), 2))
    assert folded.shape == (2, 2, 3, 12)
    for row in range(2):
        for column in range(3):
            square = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            np.testing.assert_array_equal(folded[:, row, column], square.reshape(2, 12))
    np.testing.assert_array_equal(fold.unfold(jnp.asarray(folded), 2), x)


def test_a_folded_network_is_one_of_folded_images():
    settings = dict(channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0)
    whole = DDPMpp(shape=(4, 6, 3), fold=2, **settings)
    small = DDPMpp(shape=(2, 3, 12), **settings)
    params = jax.tree.map(lambda leaf: leaf + 0.1, small.init(jax.random.key(0)))
    x, t = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), jnp.float32), jnp.asarray([0.1, 0.9])
    wanted = fold.unfold(small.apply(params, fold.fold(x, 2), t), 2)
    np.testing.assert_allclose(whole.apply({"inner": params}, x, t), wanted, atol=1e-5)
    assert jax.tree.structure(whole.init(jax.random.key(0))) == jax.tree.structure({"inner": params})
    with pytest.raises(ss.InputError, match="sides divisible by 4 for 2 levels and fold=2"):
        DDPMpp(shape=(6, 6, 1), fold=2, **(settings | dict(multipliers=(1, 2))))
    with pytest.raises(ss.InputError, match="fold of DDPMpp is 0"):
        DDPMpp(shape=(6, 6, 1), fold=0, **settings)


def test_a_stem_convolves_before_the_fold_and_behind_it():
    settings = dict(channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0)
    whole = DDPMpp(shape=(4, 6, 3), fold=2, stem=5, **settings)
    small = DDPMpp(shape=(2, 3, 20), **settings)
    params = jax.tree.map(lambda leaf: leaf + 0.1, whole.init(jax.random.key(0)))
    x, t = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32), jnp.asarray([0.1, 0.9])

    def convolved(x, weights):
        kernel, bias = np.asarray(weights["kernel"]), np.asarray(weights["bias"])
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [(padded[:, i : i + 4, j : j + 6], kernel[i, j]) for i in range(3) for j in range(3)]
        return sum(part @ matrix for part, matrix in shifted) + bias

    folded = fold.fold(jnp.asarray(convolved(x, params["conv_in"])), 2)
    wanted = convolved(np.asarray(fold.unfold(small.apply(params["inner"], folded, t), 2)), params["conv_out"])
    np.testing.assert_allclose(whole.apply(params, jnp.asarray(x), t), wanted, atol=2e-4 * np.abs(wanted).max())
    for stem, side in ((4, 1), (-1, 2)):
        with pytest.raises(ss.InputError, match=f"stem of DDPMpp is {stem} with fold={side}"):
            DDPMpp(shape=(4, 6, 3), fold=side, stem=stem, **settings)


def test_with_coordinates_a_network_knows_where_a_pixel_is():
    """Far from the edges a convolutional network treats all pixels of a constant image alike, except by coordinates."""
    x, outputs = jnp.ones((1, 32, 32, 1)), {}
    for coordinates in (False, True):
        network = DDPMpp(
            shape=(32, 32, 1), channels=8, multipliers=(1,), blocks=1, attention=(), coordinates=coordinates
        )
        params = network.init(jax.random.key(0))
        params = jax.tree.map(lambda leaf: leaf + 0.05, params)  # some layers start at zero
        outputs[coordinates] = np.asarray(network.apply(params, x, jnp.ones(1)))[0, 14:18, 14:18, 0]
    assert np.ptp(outputs[False]) < 1e-4
    assert np.ptp(outputs[True]) > 1e-2
