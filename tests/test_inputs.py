"""Wrong input to every public call: one line of InputError, whatever it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss

SDE = ss.VP()
MIXTURE = ss.GaussianMixture(SDE, [0.5, 0.5], [[1.0, 0.0], [-1.0, 0.5]], 0.3)
GRID = ss.time_grid.uniform(SDE, 2)
X = np.zeros((2, 2), np.float32)
KEYS = jax.random.split(jax.random.key(0), 2)
IMAGES = ss.QuantizedCodec((2,), 16)
VALUES = np.zeros((2, 2), np.uint8)


def sample(**changes):
    right = dict(denoiser=MIXTURE, sampler=ss.DDIM(), grid=GRID, shape=(2,), n=2, seed=0)
    arguments = right | changes
    first = [arguments.pop(name) for name in ("denoiser", "sampler", "grid", "shape")]
    return ss.sample(*first, **arguments)


def log_prob(**changes):
    arguments = dict(denoiser=MIXTURE, x=X, keys=KEYS, rtol=1e-2, atol=1e-2) | changes
    return ss.log_prob(*[arguments.pop(name) for name in ("denoiser", "x", "keys")], **arguments)


def bits(**changes):
    arguments = dict(denoiser=MIXTURE, values=VALUES, keys=KEYS, codec=IMAGES, rtol=1e-2, atol=1e-2) | changes
    return ss.bits_per_dim(*[arguments.pop(name) for name in ("denoiser", "values", "keys")], **arguments)


def encode(**changes):
    arguments = dict(denoiser=MIXTURE, x=X, rtol=1e-2, atol=1e-2) | changes
    return ss.encode(*[arguments.pop(name) for name in ("denoiser", "x")], **arguments)


def interpolate(**changes):
    arguments = dict(denoiser=MIXTURE, a=X, b=X, n=2, rtol=1e-2, atol=1e-2) | changes
    return ss.interpolate(*[arguments.pop(name) for name in ("denoiser", "a", "b", "n")], **arguments)


def loss(**changes):
    arguments = dict(denoiser=MIXTURE, x0=X, keys=KEYS, t=0.5) | changes
    return ss.denoising_loss(*[arguments.pop(name) for name in ("denoiser", "x0", "keys")], **arguments)


def score(**changes):
    arguments = dict(x=X, t=0.5, cond=None) | changes
    return MIXTURE.score(arguments["x"], arguments["t"], arguments["cond"])


CALLS = {
    sample: ("denoiser", "sampler", "grid", "shape", "n", "seed", "first", "cond", "x", "temperature", "batch_size"),
    log_prob: ("denoiser", "x", "keys", "cond", "trace", "probes", "probe", "rtol", "atol", "chunk"),
    bits: ("denoiser", "values", "keys", "cond", "draws", "codec"),
    encode: ("denoiser", "x", "cond", "rtol"),
    interpolate: ("denoiser", "a", "b", "n"),
    loss: ("denoiser", "x0", "keys", "t", "target", "cond", "reduction"),
    score: ("x", "t", "cond"),
}
WRONG = [
    None, True, -1, 0, 3, 1.5, -0.5, 1e30, np.nan, np.inf, "2", "", b"x", [], [[1, 2], [3]], [[0.1, 0.2], [0.3, 0.4]],
    {}, {"label": [0, 1]}, {"label": np.array([0, 5])}, {"label": np.array([-1, 0])}, {"label": np.array([0.5, 1.0])},
    {"label": "a"}, {"nothing": 1}, {"absent": 3}, (2,), (2, 2), (-2,), (2, 2, 2), object(), ss.Heun, ss.VP, ss.VP(),
    ss, lambda *_: 0, 1j, np.zeros((2, 2), np.uint8), np.zeros((2, 2), complex), np.zeros((2, 2), object),
    np.zeros((0, 2)),
    np.full((2, 2), np.nan), np.full((2, 2), 300), np.full((2, 2), 0.5), np.zeros((2, 3)), np.zeros(2), np.array("a"),
    np.array([[1.0, 0.0]]), np.array(["a", "b"]), jnp.zeros((2, 2), jnp.bfloat16), KEYS[:1], jax.random.key(0),
]  # fmt: skip
CASES = [(call, name) for call, names in CALLS.items() for name in names]


@pytest.mark.parametrize(("call", "name"), CASES, ids=[f"{call.__name__}-{name}" for call, name in CASES])
def test_wrong_input(call, name):
    """Whatever stands for an argument: the call succeeds, or says in one line what was expected."""
    raised = []
    for wrong in WRONG:
        try:
            call(**{name: wrong})
        except (ss.InputError, ss.DivergenceError) as error:
            if "\n" in str(error) or not str(error).endswith("."):
                raised.append(f"{wrong!r}: not one line: {error}")
        except Exception as error:
            raised.append(f"{wrong!r}: {type(error).__name__}: {str(error)[:100]}")
    assert not raised, "\n".join(raised)
