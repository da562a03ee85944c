"""This module measures how well a method restores images of the test split from measurements, and its calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import config as config_
from score_sde import inverse, metrics, sampling
from score_sde.core import keys as keys_
from score_sde.core.checks import check_types, is_number, require_whole, shown
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.experiment.guides import guided, read_guides, read_sampler, with_codec
from score_sde.inverse import Operator, methods
from score_sde.inverse.measurement import MASK, MEASURED
from score_sde.jobs import runner
from score_sde.jobs.evaluation import Context, Evaluation
from score_sde.jobs.parts import Columns
from score_sde.jobs.quality.base import network_of
from score_sde.parallel import processes
from score_sde.sampling import Sampler, Samples, time_grid

_LEAST_SIDE = 11  # pixels of SSIM's window


@dataclasses.dataclass(frozen=True)
class Restoration(Evaluation):
    """`Restoration` measures images, draws several samples of each posterior, and compares them with the images.

    For each of the first n images of the test split, y = A x + noise, and `draws` samples given y are drawn. The result
    has, with standard errors over the images: PSNR and SSIM of one draw and of the mean of all draws; the distance of
    the features of a draw and of the image; `coverage`, the share of unknown pixels that lie between the smallest and
    the largest draw, which is (draws - 1) / (draws + 1) for a calibrated method; `spread`, the standard deviation of
    draws divided by the error of their mean, 1 for a calibrated method; and `residual`, the mean square of y - A x in
    units of the noise, near 1 for samples that fit y. Everything depends on (eval.seed, image, draw) alone.

    Attributes:
        operator: the operator, as text or as a spec. `Through` gets the codec of the data.
        noise_std: the standard deviation of the noise, in the units of the operator's output.
        method: a guide, such as 'Posterior(variance=RowSums())', or a sampler, such as 'Replacement'. The operator and
            noise_std are given to it.
        sampler: the sampler for a guide.
        grid: the time grid, a function of `time_grid`.
        steps: the number of steps.
        mask: what a `Mask` hides: 'box' for a central box of half the sides, or the fraction of pixels that are hidden
            at random, for each image anew.
        n: the number of images.
        draws: the number of samples for each image, at least 2.
        features: a feature network for the distance, such as 'Classifier(weights="PATH")'; '' for none.
    """

    operator: methods.Spec = "Mask"
    noise_std: float = 0.05
    method: methods.Spec = "Posterior"
    sampler: methods.Spec = "Heun"
    grid: str = "log_snr"
    steps: int = 20
    mask: str | float = "box"
    n: int = 200
    draws: int = 16
    features: methods.Spec = ""
    name: ClassVar[str] = "restoration"

    def __post_init__(self) -> None:
        check_types(self)
        require_whole("n of Restoration", self.n, 2)
        require_whole("draws of Restoration", self.draws, 2)
        require_whole("steps of Restoration", self.steps, 1)
        if not self.noise_std > 0:
            raise InputError(f"noise_std of Restoration is {self.noise_std}; expected a positive number.")
        fraction = is_number(self.mask) and 0 < float(self.mask) < 1
        if not (self.mask == "box" or fraction):
            raise InputError(f"mask of Restoration is {shown(self.mask)}; expected 'box', or a fraction below 1.")
        for name, spaces, base in (
            ("operator", inverse, Operator),
            ("method", methods.SPACES, None),
            ("sampler", (sampling, inverse), Sampler),
        ):
            config_.lookup(spaces, _one(name, getattr(self, name))["name"], base)
        config_.lookup(time_grid, self.grid)
        if self.features:
            network_of(self.features)

    def settings(self) -> dict[str, Any]:
        """Return the settings, with the protocol of the feature network in the place of its spec."""
        found = super().settings()
        return found | {"features": network_of(self.features).protocol() if self.features else ""}

    def run(self, at: Context) -> tuple[dict[str, Any], str]:
        n = min(self.n, len(at.source))
        if at.experiment.codec.maximum is None or len(at.experiment.codec.data_shape) != 3:
            raise InputError("Restoration measures images of whole numbers; expected data with such a codec.")
        parts, archive = at.parts(self.name), at.folder / f"{self.name}.npz"
        size = runner.equal_batches(n, max(1, at.batch_size // self.draws))
        runner.run(parts, n, size, _OfBatch(self, at), "images")
        if not processes.is_first():
            return {}, ""
        seconds = parts.merge(archive, n)
        with np.load(archive) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
        found = _summary(columns, self.draws) | {"images": n, "seconds": round(seconds, 3)}
        line = (
            f"{_one('method', self.method)['name']}: PSNR {found['psnr_draw']:.2f} of a draw and "
            f"{found['psnr_mean']:.2f} dB of the mean, coverage {found['coverage']:.3f} (calibrated: "
            f"{found['coverage_if_calibrated']:.3f}), spread {found['spread']:.2f}"
        )
        return found, f"{line} over {n} images with {self.draws} draws"


class _OfBatch:
    """`_OfBatch` measures and restores a batch of images on the devices of this process."""

    def __init__(self, settings: Restoration, at: Context) -> None:
        self._settings, self._at, self._devices = settings, at, at.devices.local
        codec = at.experiment.codec
        entry = with_codec(_one("operator", settings.operator), codec)
        self._operator: Operator = config_.build(inverse, entry, base=Operator)
        self._denoiser, self._sampler = self._method(at.denoiser(self._devices))
        self._grid = config_.build(time_grid, {"name": settings.grid, "n": settings.steps}, self._denoiser.sde)

    def _method(self, denoiser: Denoiser) -> tuple[Denoiser, Sampler]:
        settings, codec = self._settings, self._at.experiment.codec
        method = methods.with_problem(_one("method", settings.method), self._operator, settings.noise_std)
        if methods.is_sampler(method):
            return guided(denoiser, read_guides("method", "", True, codec)), read_sampler(method, codec)
        sampler = read_sampler(_one("sampler", settings.sampler), codec)
        return guided(denoiser, read_guides("method", [method], True, codec)), sampler

    def __call__(self, numbers: np.ndarray) -> Columns:
        at, settings, codec = self._at, self._settings, self._at.experiment.codec
        values = np.asarray(at.batch(numbers)["values"])
        x, _ = codec.encode(jnp.asarray(values), None)
        keys = keys_.examples(keys_.stream(at.seed, "measure"), numbers)
        cond = self._conditions(x, keys)
        samples = self._draw(cond, int(numbers[0]), len(numbers))
        shape = (len(numbers), settings.draws, *codec.data_shape)
        drawn = np.asarray(codec.quantize(codec.decode(samples.x)), np.float64).reshape(shape)
        columns = self._compared(values.astype(np.float64), drawn, cond, numbers)
        columns["residual"] = self._residual(samples.x, cond)
        counts = {"nfe": samples.nfe} | ({} if samples.vjps is None else {"vjps": samples.vjps})
        return columns | {name: count.reshape(shape[:2])[:, 0] for name, count in counts.items()}

    def _conditions(self, x: jax.Array, keys: jax.Array) -> dict[str, np.ndarray]:
        """Return the measurements, and the masks if the operator reads masks."""
        cond: dict[str, Any] = {}
        reads = self._operator.reads(tuple(x.shape[1:]))
        if MASK in reads:
            shape = (len(x), *reads[MASK].shape)
            cond[MASK] = jnp.broadcast_to(self._known(shape, keys), shape)
        clean = self._operator(x, cond)
        noise = keys_.normal(keys_.fold(keys, "noise of y"), clean.shape[1:], clean.dtype)
        return {MEASURED: np.asarray(clean + self._settings.noise_std * noise)} | jax.tree.map(np.asarray, cond)

    def _known(self, shape: tuple[int, ...], keys: jax.Array) -> jax.Array:
        """Return True for known pixels, (batch, height, width, 1)."""
        height, width = shape[1:3]
        if self._settings.mask != "box":
            u = keys_.draw(jax.random.uniform, keys_.fold(keys, "hidden"), (height, width, 1))
            return u >= float(self._settings.mask)
        rows, columns = (np.abs(np.arange(side) - (side - 1) / 2) < side / 4 for side in (height, width))
        return jnp.asarray(~(rows[:, None] & columns[None, :]))[None, :, :, None]

    def _draw(self, cond: Cond, first: int, count: int) -> Samples:
        draws = self._settings.draws
        every = jax.tree.map(lambda leaf: np.repeat(leaf, draws, axis=0), cond)
        return sampling.sample(
            self._denoiser,
            self._sampler,
            self._grid,
            self._at.experiment.codec.model_shape,
            n=count * draws,
            first=first * draws,
            seed=self._at.seed,
            cond=every,
            batch_size=min(self._at.batch_size, count * draws),
            sharding=self._devices.sharded,
        )

    def _compared(self, truth: np.ndarray, drawn: np.ndarray, cond: Cond, numbers: np.ndarray) -> dict[str, Any]:
        """Return the comparison of each image with its draws, (images, draws, *shape)."""
        top, mean, first = float(self._at.experiment.codec.maximum), drawn.mean(axis=1), drawn[:, 0]
        with jax.enable_x64(True):
            found = {f"psnr_{name}": metrics.psnr(one, truth, top) for name, one in (("draw", first), ("mean", mean))}
            if min(truth.shape[1:3]) >= _LEAST_SIDE:
                found |= {
                    f"ssim_{name}": metrics.ssim(one, truth, top) for name, one in (("draw", first), ("mean", mean))
                }
        unknown = np.ones(truth.shape, bool)
        if isinstance(self._operator, inverse.Mask):
            unknown = np.asarray(self._operator.measured(jnp.asarray((cond or {})[MEASURED]), cond)) == 0
        axes = tuple(range(1, truth.ndim))
        weight = unknown / np.maximum(unknown.sum(axis=axes, keepdims=True), 1)
        # Equal values are ordered at random, because pixels of images are often equal.
        ties = [np.random.default_rng([self._at.seed, int(number)]).random(truth.shape[1:]) for number in numbers]
        below, equal = ((drawn < truth[:, None]).sum(axis=1), (drawn == truth[:, None]).sum(axis=1))
        rank = below + np.floor(np.stack(ties) * (equal + 1))
        inside = (rank >= 1) & (rank <= drawn.shape[1] - 1)
        found |= {
            "covered": (inside * weight).sum(axis=axes),
            "variance": (drawn.var(axis=1, ddof=1) * weight).sum(axis=axes),
            "error": ((mean - truth) ** 2 * weight).sum(axis=axes),
        }
        if self._settings.features:
            network = network_of(self._settings.features)
            ends = [np.asarray(network.outputs(network.params, jnp.asarray(part, jnp.float32))["features"])
                    for part in (truth, first, mean)]  # fmt: skip
            for name, part in (("draw", ends[1]), ("mean", ends[2])):
                found[f"distance_{name}"] = np.linalg.norm(part - ends[0], axis=1)
        return {name: np.asarray(value) for name, value in found.items()}

    def _residual(self, x: np.ndarray, cond: Cond) -> np.ndarray:
        """Return the mean square of y - A x in units of the noise, of the first draw of each image."""
        first = jnp.asarray(x[:: self._settings.draws])
        y = jnp.asarray((cond or {})[MEASURED], first.dtype)
        square = (self._operator.residual(first, y, cond) / self._settings.noise_std) ** 2
        measured = self._operator.measured(y, cond)
        axes = tuple(range(1, y.ndim))
        return np.asarray(square.sum(axis=axes) / measured.sum(axis=axes))


def _summary(columns: Mapping[str, np.ndarray], draws: int) -> dict[str, Any]:
    """Return means over the images with their standard errors; infinite PSNRs count as 100 dB."""
    found: dict[str, Any] = {}
    for name, column in columns.items():
        if name in ("index", "variance", "error"):
            continue
        values = np.minimum(column.astype(float), 100.0) if name.startswith("psnr") else column.astype(float)
        title = "coverage" if name == "covered" else name
        found[title] = float(values.mean())
        if name not in ("nfe", "vjps"):
            found[f"{title}_stderr"] = float(values.std(ddof=1) / np.sqrt(len(values)))
    # The mean of `draws` samples has the error (1 + 1 / draws) times the variance of the posterior.
    spread = np.sqrt((1 + 1 / draws) * columns["variance"].mean() / max(columns["error"].mean(), 1e-12))
    return found | {"spread": float(spread), "coverage_if_calibrated": (draws - 1) / (draws + 1)}


def _one(name: str, given: methods.Spec) -> dict[str, Any]:
    return methods.one_spec(f"{name} of Restoration", given)
