"""Each change of EDM's augmentation agrees with its label; the references are NumPy, Pillow and colorsys."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import score_sde as ss
from score_sde import data
from score_sde.core.conditions import Conditions
from score_sde.data import augment
from score_sde.networks import DDPMpp

RNG = np.random.default_rng(0)
SMOOTH = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((32, 32), Image.Resampling.BICUBIC),
    np.float32,
)


def matrix(*rows):
    return jnp.asarray(rows, jnp.float32)


def test_moves_against_numpy():
    move = jax.jit(augment.transformed)
    image = jnp.asarray(SMOOTH)
    noise = jnp.asarray(RNG.uniform(0, 255, (6, 8, 2)), jnp.float32)
    # The tolerance allows for the smoothing of the filter.
    np.testing.assert_allclose(move(image, jnp.eye(3))[1:-1, 1:-1], SMOOTH[1:-1, 1:-1], atol=4)
    blurred = move(noise, jnp.eye(3))
    np.testing.assert_allclose(move(noise, matrix([-1, 0, 0], [0, 1, 0], [0, 0, 1])), blurred[:, ::-1], atol=1e-2)
    np.testing.assert_allclose(move(noise, matrix([1, 0, 0], [0, -1, 0], [0, 0, 1])), blurred[::-1], atol=1e-2)
    square = noise[:, :6]
    turned = move(square, matrix([0, -1, 0], [1, 0, 0], [0, 0, 1]))  # x' = -y is a quarter turn
    np.testing.assert_allclose(turned, np.rot90(move(square, jnp.eye(3)), 1), atol=1e-2)
    shifted = move(noise, matrix([1, 0, 2 * 2 / 6], [0, 1, 0], [0, 0, 1]))  # two pixels; half a side has three
    np.testing.assert_allclose(shifted[:, :5], blurred[:, 2:7], atol=1e-2)
    half = move(image, matrix([2, 0, 0], [0, 2, 0], [0, 0, 1]))[8:24, 8:24]
    box = SMOOTH.reshape(16, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(half - box).max() < 6
    double = move(image, matrix([0.5, 0, 0], [0, 0.5, 0], [0, 0, 1]))
    expected = Image.fromarray(SMOOTH.astype(np.uint8)).crop((8, 8, 24, 24)).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(double - np.asarray(expected, np.float32))[2:-2, 2:-2].max() < 8


def draws(spec, n=400, image=SMOOTH):
    keys = jax.random.split(jax.random.key(0), n)
    values = jnp.broadcast_to(jnp.asarray(image), (n, *image.shape))
    changed, cond = jax.jit(lambda v, k: spec.augmented(v, None, k))(values, keys)
    return np.asarray(changed), np.asarray(cond["augment"])


def test_each_change_is_as_frequent_as_stated_and_has_its_distribution():
    _, labels = draws(data.Augment(probability=0.5, mirror=0.25), n=4000, image=SMOOTH[:4, :4])
    share = {
        name: (labels[:, i] != 0).mean()
        for name, i in zip(("mirror", "turn", "scale", "rotate", "stretch"), (0, 1, 2, 4, 5))
    }
    for name, expected in dict(mirror=0.25, turn=0.25, scale=0.5, rotate=0.5, stretch=0.5).items():
        assert abs(share[name] - expected) < 5 * np.sqrt(expected * (1 - expected) / 4000), name
    scale = labels[labels[:, 2] != 0, 2]
    assert abs(scale.std() - 1) < 5 / np.sqrt(2 * len(scale))
    both = (labels[:, 7] != 0) == (labels[:, 8] != 0)
    assert both.all()
    turned = labels[labels[:, 4] != 0]
    np.testing.assert_allclose((turned[:, 3] + 1) ** 2 + turned[:, 4] ** 2, 1, atol=1e-5)
    angle = np.arctan2(turned[:, 4], turned[:, 3] + 1)
    assert abs(np.mean(angle > np.pi / 2) - 0.25) < 0.05


def test_nothing_is_done_where_the_numbers_are_zero():
    changed, labels = draws(data.Augment(probability=0.12, colour=True), n=200)
    assert labels.shape == (200, 15)
    still = (labels == 0).all(axis=1)
    assert 0.02 < still.mean() < 0.6
    np.testing.assert_allclose(changed[still], np.broadcast_to(SMOOTH, changed[still].shape), atol=1e-3)
    assert all(np.abs(image - SMOOTH).max() > 1e-2 for image in changed[~still])
    nothing, labels = draws(data.Augment(probability=0.0, mirror=0.0, colour=True), n=3)
    np.testing.assert_array_equal(nothing, np.broadcast_to(SMOOTH, nothing.shape))


def test_colours_against_colorsys_and_closed_forms():
    spec = data.Augment(probability=0.4, mirror=0.0, colour=True, maximum=255.0)
    flat = np.broadcast_to(np.float32([200, 90, 40]), (4, 4, 3))
    changed, labels = draws(spec, n=3000, image=flat)
    moved = (labels[:, :9] == 0).all(axis=1)
    colour = labels[:, 9:]
    x = flat[0, 0] / 255 * 2 - 1

    def only(*places):
        others = [i for i in range(6) if i not in places]
        rows = moved & (colour[:, others] == 0).all(axis=1) & (colour[:, places] != 0).any(axis=1)
        assert rows.sum() > 3
        return changed[rows, 0, 0] / 255 * 2 - 1, colour[rows]

    pixels, numbers = only(0)
    np.testing.assert_allclose(pixels, x + 0.2 * numbers[:, :1], atol=1e-4)
    pixels, numbers = only(1)
    np.testing.assert_allclose(pixels, x * 2 ** (0.5 * numbers[:, 1:2]), rtol=1e-4)
    pixels, _ = only(2)
    np.testing.assert_allclose(pixels, np.broadcast_to(x - 2 * x.mean(), pixels.shape), atol=1e-4)
    pixels, numbers = only(5)
    np.testing.assert_allclose(pixels, x.mean() + (x - x.mean()) * 2 ** numbers[:, 5:6], atol=1e-3)
    pixels, numbers = only(3, 4)  # a rotation about grey keeps the mean and the distance from grey
    np.testing.assert_allclose(pixels.mean(1), np.full(len(pixels), x.mean()), atol=1e-4)
    np.testing.assert_allclose(
        ((pixels - x.mean()) ** 2).sum(1), np.full(len(pixels), ((x - x.mean()) ** 2).sum()), rtol=1e-3
    )
    hues = np.array([colorsys.rgb_to_hsv(*((rgb - rgb.min()) / np.ptp(rgb)))[0] for rgb in pixels]) * 2 * np.pi
    start = colorsys.rgb_to_hsv(*((x - x.min()) / np.ptp(x)))[0] * 2 * np.pi
    angle = np.arctan2(numbers[:, 4], numbers[:, 3] + 1)
    away = np.angle(np.exp(1j * (hues - start - angle)))
    assert np.abs(away).max() < 0.3  # HSV's hue is the angle to within 0.13 rad, before and after the rotation


def test_an_example_is_changed_by_its_own_key():
    spec = data.Augment()
    keys = jax.random.split(jax.random.key(3), 8)
    values = jnp.asarray(RNG.uniform(0, 255, (8, 6, 6, 1)), jnp.float32)
    whole, cond = spec.augmented(values, {"label": jnp.arange(8)}, keys)
    part, some = spec.augmented(values[2:5], {"label": jnp.arange(2, 5)}, keys[2:5])
    np.testing.assert_allclose(part, whole[2:5], atol=1e-4)
    np.testing.assert_array_equal(some["augment"], cond["augment"][2:5])
    assert cond["label"].shape == (8,)
    with pytest.raises(ss.InputError, match="Augment is for images, and examples have shape"):
        spec.augmented(values[..., 0], None, keys)


def test_evaluation_sees_the_data_as_they_are():
    spec = data.Augment()
    conditioning = data.Conditioning(Conditions(spec.conditions), (spec,))
    values = jnp.asarray(RNG.uniform(0, 255, (8, 6, 6, 1)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 8)
    same, cond = conditioning(values, None, keys, train=False)
    assert same is values
    assert not np.asarray(cond["augment"]).any()
    changed, cond = conditioning(values, None, keys, train=True)
    assert np.asarray(cond["augment"]).any()
    assert np.abs(np.asarray(changed - values)).max() > 1


def test_a_network_reads_vectors_and_an_absent_one_is_zero():
    conditions = Conditions(augment=ss.Condition(shape=(9,)), label=ss.Label(3))
    network = DDPMpp(
        shape=(4, 4, 1), channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0, conditions=conditions
    )
    params = network.init(jax.random.key(0))
    # The initial last layer is 0, which would hide the effect of the conditions.
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    x, t = jnp.asarray(RNG.normal(size=(2, 4, 4, 1)), jnp.float32), jnp.asarray([0.1, 0.7])
    label = jnp.asarray([0, 2])

    def out(**cond):
        return np.asarray(network.apply(params, x, t, dict(label=label, **cond)))

    zero, vector = jnp.zeros((2, 9)), jnp.asarray(RNG.normal(size=(2, 9)), jnp.float32)
    np.testing.assert_array_equal(out(augment=zero), out())
    np.testing.assert_array_equal(out(augment=vector, absent=dict(augment=jnp.asarray([True, True]))), out())
    half = out(augment=vector, absent=dict(augment=jnp.asarray([True, False])))
    np.testing.assert_allclose(half[0], out()[0], atol=1e-6)
    assert np.abs(half[1] - out()[1]).max() > 1e-3
    with pytest.raises(
        ss.InputError, match="DDPMpp reads 'label', a Label, and vectors of numbers; conditions has text"
    ):
        DDPMpp(
            shape=(4, 4, 1),
            channels=8,
            multipliers=(1,),
            blocks=1,
            attention=(),
            dropout=0.0,
            conditions=Conditions(text=ss.Text(4)),
        )


@pytest.mark.parametrize("wrong", [dict(probability=1.5), dict(mirror="no"), dict(maximum="x"), dict(colour=1)])
def test_settings_that_are_none(wrong):
    with pytest.raises(ss.InputError, match=next(iter(wrong))):
        data.Augment(**wrong)
