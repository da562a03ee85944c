"""This module makes the configurations published with Song et al. 2021 (arXiv:2011.13456), by data set and words.

Words, joined by commas: an SDE (ve, vp, subvp), a network (ncsnpp, ddpmpp, ddpm, ncsn, ncsnv2), deep (8 blocks),
discrete (the chain instead of its limit; NCSN and NCSNv2 always use the chain), unconditional (the network does not get
the noise level), a version of the data set, and for NCSN the techniques of Song & Ermon 2020 (124, 5, 1245).
The name of a configuration in 2021 is also valid: ve_ncsnpp_deep_continuous.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_collections

from score_sde import config as config_
from score_sde.configs import variants
from score_sde.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class DataSet:
    """`DataSet` holds what the published configurations of a data set share.

    Attributes:
        file: the config file, for messages.
        data: section data of the config, without the scale of the pixels (centered).
        sigma_max: largest noise level of VE and its chain.
        scales: number N of noise levels of VE and its chain.
        snr: signal-to-noise ratio of the corrector.
        batch_size, steps, dropout: settings of training.
        old: {name of a configuration in 2021: its words}.
        versions: words that select a version of the data; the first word is the default.
    """

    file: str
    data: dict[str, Any]
    sigma_max: float
    scales: int
    snr: float
    batch_size: int
    steps: int
    dropout: float
    old: dict[str, str]
    versions: tuple[str, ...] = ()


SDES = ("ve", "vp", "subvp")
NETWORKS = ("ncsnpp", "ddpmpp", "ddpm", "ncsn", "ncsnv2")
REFINE = ("ncsn", "ncsnv2")
TECHNIQUES = ("124", "5", "1245")


def choose(data_set: DataSet, variant: str) -> dict[str, str | None]:
    """Return the word of each group that a variant names; a name of 2021 is first replaced by its words."""
    name = variant.removesuffix(".py").replace("/", "_")
    by_name = {_short(old, data_set): words for old, words in data_set.old.items()}
    by_name |= {old.replace("/", "_"): words for old, words in data_set.old.items()}
    groups: dict[str, Any] = dict(sde=SDES, network=NETWORKS, depth=("deep",), time=("continuous", "discrete"))
    groups |= dict(told=("unconditional",), version=data_set.versions, technique=TECHNIQUES)
    known = ", ".join(_short(old, data_set) for old in data_set.old)
    words = variants.pick(data_set.file, by_name.get(name, variant), groups, f"; or a name of 2021: {known}")
    words["sde"] = words["sde"] or "ve"
    words["network"] = words["network"] or ("ncsnpp" if words["sde"] == "ve" else "ddpmpp")
    if data_set.versions:
        words["version"] = words["version"] or data_set.versions[0]
    _check(data_set, variant, words)
    return words


def _short(old: str, data_set: DataSet) -> str:
    """Return 've_ncsnpp_continuous' for 've/cifar10_ncsnpp_continuous' of configs/cifar10.py."""
    own = data_set.file.removeprefix("configs/").removesuffix(".py")
    return "_".join(word for part in old.split("/") for word in part.split("_") if word != own)


def _check(data_set: DataSet, variant: str, words: dict[str, str | None]) -> None:
    sde, network = words["sde"], words["network"]
    wrong = None
    if network in REFINE and (sde != "ve" or words["time"] == "continuous"):
        wrong = f"{network} works with the levels of the ve chain only"
    elif words["time"] == "discrete" and sde == "subvp":
        wrong = "subvp has no chain"
    elif words["depth"] and network not in ("ncsnpp", "ddpmpp"):
        wrong = f"deep is for ncsnpp and ddpmpp, not for {network}"
    elif words["told"] and network not in ("ddpm", "ncsnpp", "ddpmpp"):
        wrong = f"{network} always uses the noise level"
    elif words["technique"] and network != "ncsn":
        wrong = f"{words['technique']} is for ncsn, not for {network}"
    elif network == "ddpmpp" and sde == "ve" and words["time"] != "discrete":
        wrong = "ddpmpp takes a time or an index, but continuous ve gives sigma: use ncsnpp"
    elif network == "ddpm" and sde == "ve" and words["time"] != "discrete":
        wrong = "ddpm takes a time or an index, but continuous ve gives sigma: use ve,ddpm,discrete"
    if wrong:
        raise InputError(f"{data_set.file} has no variant {variant!r}: {wrong}.")


def config(
    data_set: DataSet,
    words: dict[str, str | None],
    network: dict[str, Any],
    **changes: Any,
) -> ml_collections.ConfigDict:
    """Return the config for words, with the `network` entries of the data set.

    `changes` are entries by dotted name, with '__' instead of the dot, such as optimizer__schedule.
    """
    sde, kind = str(words["sde"]), str(words["network"])
    discrete = words["time"] == "discrete" or kind in REFINE
    ve = sde == "ve"
    # The chain of DDPM has 1,000 levels for every data set.
    levels = 1000 if discrete and not ve else data_set.scales
    made = config_.complete(
        dict(
            seed=42,
            data=dict(**data_set.data, centered=not ve, dir="", batch_size=data_set.batch_size, flip=True),
            sde=_sde(sde, discrete, data_set, levels),
            parametrization=dict(
                name="Score" if ve else "Noise",
                time_label="index" if discrete else "sigma" if ve else "scaled_time",
                data_std=None,
                scale_by_sigma=ve and kind != "ncsn",
            ),
            network=_network(words, discrete, data_set) | network | dict(dtype="auto", remat="none"),
            objective=dict(
                name="Denoising",
                target="noise",
                weight="unit",
                times="knots" if discrete else "uniform",
                stratified=False,
                reduction="half_sum" if ve else "mean",
            ),
            optimizer=_optimizer(),
            averages=dict(ema=dict(name="WarmedUp", decay=0.999 if ve else 0.9999)),
            train=dict(
                steps=950_000 if words["depth"] else data_set.steps,
                log_every=50,
                eval_every=10_000,
                sample_every=50_000,
                checkpoint_every=10_000 if data_set.batch_size == 128 else 5_000,
                keep=dict(last=1, every=50_000),
            ),
            sample=dict(
                sampler=_sampler(sde, kind, discrete, data_set.snr),
                grid=dict(name="uniform", n=levels - 1),
                n=64,
                batch_size=64,
            ),
            eval=dict(
                what="HeldOutLoss" if discrete else "HeldOutLoss, Likelihood(probes=1, rtol=1e-5, atol=1e-5, draws=5)",
                batch_size=100,
            ),
        )
    )
    if kind in REFINE:
        _as_in_2019(made, words)
    for name, value in changes.items():
        entry: Any = made
        *path, last = name.split("__")
        for part in path:
            entry = entry[part]
        entry[last] = value
    return made


def _optimizer() -> dict[str, Any]:
    schedule = dict(name="warmup_constant_schedule", init_value=0.0, peak_value=2e-4, warmup_steps=5000)
    return dict(name="adam", b1=0.9, b2=0.999, eps=1e-8, schedule=schedule, clip=1.0)


def _sde(sde: str, discrete: bool, data_set: DataSet, n: int) -> dict[str, Any]:
    if sde == "ve":
        levels = dict(sigma_min=0.01, sigma_max=float(data_set.sigma_max))
        return dict(name="SMLD", n=n, **levels) if discrete else dict(name="VE", **levels)
    betas = dict(beta_min=0.1, beta_max=20.0)
    return dict(name="DiscreteVP", n=n, **betas) if discrete else dict(variants.SDES[sde])


def _network(words: dict[str, str | None], discrete: bool, data_set: DataSet) -> dict[str, Any]:
    kind, ve = words["network"], words["sde"] == "ve"
    common: dict[str, Any] = dict(channels=128, nonlinearity="swish")
    if kind in REFINE:
        return common | dict(name="NCSN" if kind == "ncsn" else "NCSNv2", nonlinearity="elu")
    common |= dict(attention=(16,), dropout=data_set.dropout, resample_with_conv=True)
    common |= dict(noise_conditional=words["told"] is None)
    if kind == "ddpm":
        return dict(name="DDPM", **common)
    return dict(
        name="NCSNpp",
        **common,
        embedding="fourier" if ve and not discrete else "positional",
        fourier_scale=16.0,
        resblock="biggan",
        fir=kind == "ncsnpp",
        fir_kernel=(1.0, 3.0, 3.0, 1.0),
        skip_rescale=True,
        init_scale=0.0,
        progressive="none",
        progressive_input="residual" if kind == "ncsnpp" else "none",
        combine="sum",
    )


def _sampler(sde: str, kind: str, discrete: bool, snr: float) -> dict[str, Any]:
    if sde == "ve":
        # The published setting is norms='batch', but with that a sample depends on the other samples of its batch.
        corrector = dict(name="Langevin", snr=snr, steps=1, norms="expected")
        return dict(name="PredictorCorrector", predictor=dict(name="ReverseDiffusion"), corrector=corrector)
    if not discrete:
        return dict(name="EulerMaruyama")
    return dict(name="ReverseDiffusion") if kind == "ncsnpp" else dict(name="Ancestral", variance="forward")


def _as_in_2019(made: ml_collections.ConfigDict, words: dict[str, str | None]) -> None:
    """Set the optimizer of NCSN and NCSNv2: no warm-up, no clipping; NCSN has an average only with technique 5."""
    rate = 1e-3 if words["network"] == "ncsn" else 1e-4
    made.optimizer.schedule = dict(name="constant_schedule", value=rate)
    made.optimizer.clip = None
    if words["network"] == "ncsn" and words["technique"] not in ("5", "1245"):
        made.averages.ema.decay = 0.0


def refine(
    data_set: DataSet, words: dict[str, str | None], levels: int, snr: float, steps: int = 5, **changes: Any
) -> ml_collections.ConfigDict:
    """Return the config of NCSN or NCSNv2 with `levels` noise levels and annealed Langevin dynamics.

    NCSN without techniques 1, 2 and 4 of Song & Ermon 2020 (words 124 and 1245) has ten levels from sigma = 1, with 100
    steps for each level.
    """
    if words["network"] == "ncsn" and words["technique"] not in ("124", "1245"):
        data_set, levels, snr, steps = dataclasses.replace(data_set, sigma_max=1), 10, 0.316, 100
    corrector = dict(name="AnnealedLangevin", snr=snr, steps=steps)
    made = config(dataclasses.replace(data_set, scales=levels), words, {}, **changes)
    made.sample.sampler = dict(name="PredictorCorrector", predictor=None, corrector=corrector)
    return made


def pyramids(words: dict[str, str | None]) -> dict[str, Any]:
    """Return the entries for the input pyramid and the output pyramid of NCSN++, for 256 pixels and more."""
    return dict(progressive="output_skip", progressive_input="input_skip") if words["network"] == "ncsnpp" else {}


def small(data_set: DataSet, variant: str, levels: int, snr: float) -> ml_collections.ConfigDict:
    """Return the config for images of 32 or 64 pixels; `levels` and `snr` are the values of NCSNv2."""
    words = choose(data_set, variant)
    kind = words["network"]
    if kind in REFINE:
        return refine(data_set, words, levels=levels, snr=snr)
    return config(
        data_set, words, dict(multipliers=(1, 2, 2, 2), blocks=2 if kind == "ddpm" else 8 if words["depth"] else 4)
    )
