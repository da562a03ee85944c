"""This module defines the words of a variant, and the entries that an SDE and a parametrisation require."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

from score_sde.core.errors import InputError

# The SDEs by word. sigma_max of VE and SMLD depends on the size of the data, so a config may change it.
SDES: dict[str, dict[str, Any]] = {
    "vp": dict(name="VP", beta_min=0.1, beta_max=20.0),
    "subvp": dict(name="SubVP", beta_min=0.1, beta_max=20.0),
    "ve": dict(name="VE", sigma_min=0.01, sigma_max=15.0),
    "cosine": dict(name="CosineVP"),
    "sigmoid": dict(name="SigmoidVP"),
    "edm": dict(name="EDM", sigma_min=0.002, sigma_max=80.0),
    "rectified_flow": dict(name="RectifiedFlow"),
    "ddpm": dict(name="DDPM", n=1000),
    "cosine_ddpm": dict(name="CosineDDPM", n=1000),
    "discrete_vp": dict(name="DiscreteVP", n=1000),
    "smld": dict(name="SMLD", n=1000, sigma_min=0.01, sigma_max=15.0),
    "learned": dict(name="LearnedVP", log_snr_min=-5.0, log_snr_max=13.3),
}
_BY_LEVEL = ("edm", "learned")  # the network's time label is a logarithm of the noise level
CHAINS = ("ddpm", "cosine_ddpm", "discrete_vp", "smld")

PARAMETRIZATIONS = {
    "noise": "Noise",
    "score": "Score",
    "x0": "X0",
    "velocity": "Velocity",
    "v": "VPrediction",
    "preconditioned": "Preconditioned",
}


# Losses by word, and the variance that the network predicts beside the mean. `variational` learns one on a chain only.
LOSSES: dict[str, str | None] = {
    "likelihood": None,
    "hybrid": "fraction",
    "variational": None,
    "moments": "noise_residual",
    "pixel": "log_x0",
    "uncertainty": None,
}
_OF_CHAINS = ("hybrid",)

TASKS = ("classifier",)

# Words of processes without Gaussian noise (docs/nongaussian.md), for a network that predicts x_0.
PROCESSES = ("naive", "one_step", "cold")

# A variant of every config that uses this module may have one word of each group.
GROUPS: dict[str, Collection[str]] = {
    "sde": SDES,
    "parametrization": PARAMETRIZATIONS,
    "labels": ("conditional",),
    "loss": LOSSES,
    "sampler": ("pc",),
}


def choose(config: str, variant: str, **more: Collection[str]) -> dict[str, str | None]:
    """Return the word of each group, of `more` and of GROUPS, that a variant names, or None for a group without a word.

    Raises:
        InputError: for a word of no group, or for two words of one group.
    """
    return pick(config, variant, more | GROUPS)


def pick(config: str, variant: str, groups: dict[str, Collection[str]], also: str = "") -> dict[str, str | None]:
    """Return the word of each of these groups, like `choose`; `also` names other variants in messages."""
    chosen: dict[str, str | None] = dict.fromkeys(groups)
    for word in filter(None, variant.split(",")):
        group = next((name for name, words in groups.items() if word in words), None)
        if group is None:
            near = difflib.get_close_matches(word, [each for words in groups.values() for each in words], n=1)
            why = f"{word!r}" + (f" ({near[0]}?)" if near else "")
        elif chosen[group] not in (None, word):
            why = f"{word!r} beside {chosen[group]!r}"
        else:
            chosen[group] = word
            continue
        listed = "; ".join(", ".join(words) for words in groups.values() if words)
        raise InputError(
            f"{config} has no variant {variant!r}: {why}; expected at most one word of each of: {listed}; joined by "
            f"commas{also}."
        )
    return chosen


def _refuse_beside_task(config: str, variant: str, words: dict[str, str | None], group: str, word: str) -> None:
    """Raise InputError if a word stands beside that of the task, except one of `group`, which messages call `word`."""
    others = [other for name, other in words.items() if other and name not in ("task", group)]
    if others:
        raise InputError(
            f"{config} has no variant {variant!r}: {words['task']!r} beside {', '.join(map(repr, others))}; expected "
            f"{words['task']!r}, with or without {word}."
        )


def data(words: dict[str, str | None], **entries: Any) -> dict[str, Any]:
    """Return the section data; a conditional model gets the class, which training drops for one example in ten."""
    conditional = dict(given=("label",), drop=dict(label=0.1)) if words["labels"] else dict(given=(), drop={})
    return dict(**entries, flip=False, **conditional)


def sde_of(words: dict[str, str | None], default: str) -> str:
    """Return the word of the SDE: the chosen one, `ddpm` for a loss of chains, `vp` with other words, or a default."""
    if words["loss"] in _OF_CHAINS:
        return words["sde"] or "ddpm"
    return words["sde"] or ("vp" if words["parametrization"] or words["loss"] or words["sampler"] else default)


def model(
    sde: str, parametrization: str | None, data_std: float | str, loss: str | None = None
) -> dict[str, dict[str, Any]]:
    """Return the entries sde and parametrization; None stands for the usual parametrisation of the SDE."""
    usual = {"edm": "preconditioned", "rectified_flow": "velocity", "cosine_ddpm": "v", "learned": "v"}
    meaning = parametrization or usual.get(sde, "noise")
    label = "index" if sde in CHAINS else "quarter_log_sigma" if sde in _BY_LEVEL else "scaled_time"
    made = dict(name=PARAMETRIZATIONS[meaning], time_label=label, data_std=data_std)
    variance = variance_of(sde, loss)
    return dict(sde=dict(SDES[sde]), parametrization=made | ({} if variance is None else dict(variance=variance)))


def variance_of(sde: str, loss: str | None) -> str | None:
    """Return the variance that the network predicts; None for a network that predicts the mean only."""
    return "fraction" if loss == "variational" and sde in CHAINS else LOSSES.get(loss or "")


def embedding(sde: str) -> dict[str, Any]:
    """Return the network's entries for its time label; the label of EDM is a logarithm, from -1.6 to 1.1."""
    return dict(embedding="fourier" if sde in _BY_LEVEL else "positional", fourier_scale=1.0)


def objective(sde: str, parametrization: str, weighting: str | None, data_std: float | str) -> dict[str, Any]:
    """Return the entry objective.

    The loss is the error of the network's output F if this error is evenly spread, otherwise the error of the noise.
    """
    if sde == "learned":
        return dict(name="LearnedSchedule", stratified=True)
    if weighting == "variational":
        chain = dict(variance="posterior", times=dict(name="LossAware"))
        return dict(name="Variational", stratified=True) | (chain if sde in CHAINS else {})
    entry = dict(name="Denoising", target="noise", weight="unit", times="uniform", stratified=False, reduction="mean")
    if weighting == "likelihood":
        return entry | dict(weight="likelihood", times="importance")
    if sde in CHAINS:
        entry["times"] = "knots"
    if parametrization == "Velocity" and sde == "rectified_flow":
        entry["target"] = "velocity"
    if parametrization in ("VPrediction", "Preconditioned"):
        std = 1.0 if parametrization == "VPrediction" else data_std
        entry |= dict(target="x0", weight=dict(name="Karras", data_std=std))
    if parametrization == "X0":
        # The loss is the error of the noise, cut off near the data. With gamma = 5, details below sigma = 0.4 are lost.
        entry |= dict(target="x0", weight=dict(name="MinSNR", gamma=1000.0))
    if sde == "edm":
        entry |= dict(target="x0", weight=dict(name="Karras", data_std=data_std))
        entry |= dict(times=dict(name="LogNormal", mean=-1.2, std=1.2))
    if weighting == "pixel":
        return dict(name="PixelVariance", times=entry["times"], stratified=False)
    named = {"hybrid": "Hybrid", "moments": "SecondMoment", "uncertainty": "LevelUncertainty"}
    return entry | dict(name=named.get(weighting or "", "Denoising"))


def classifier(
    config: str, variant: str, words: dict[str, str | None], data_std: float, steps: int, **sections: dict[str, Any]
) -> dict[str, Any]:
    """Return the config of a classifier of noised images; `sections` has data, network and the sections that differ.

    The noise levels that decide about the class are drawn most often.

    Raises:
        InputError: if the word 'classifier' is beside a word that only a denoiser uses.
    """
    _refuse_beside_task(config, variant, words, "sde", "an SDE")
    sde = words["sde"] or "edm"
    times: Any = "knots" if sde in CHAINS else dict(name="LogNormal", mean=-0.5, std=1.5) if sde == "edm" else "uniform"
    sections["network"] = dict(
        name="UNetClassifier",
        pool="attention",
        head_channels=32,
        dtype="auto",
        remat="none",
        **embedding(sde),
        **sections["network"],
    )
    return dict(
        model(sde, None, data_std),
        objective=dict(name="Classification", times=times, stratified=True),
        **classifying(steps, every=max(1, steps // 3), rate=2e-3, warmup=100, decay=0.995, batch_size=250),
        **sections,
    )


def classifying(
    steps: int, every: int, rate: float, warmup: int, decay: float, batch_size: int
) -> dict[str, dict[str, Any]]:
    """Return the sections optimizer, averages, train and eval of a classifier.

    `every` is the interval of held-out losses and checkpoints, `rate` the largest learning rate after `warmup` steps,
    `decay` that of the averaged weights, and `batch_size` that of the evaluation.
    """
    schedule = dict(name="warmup_cosine_decay_schedule", init_value=0.0, peak_value=rate, warmup_steps=warmup)
    return dict(
        optimizer=dict(name="adamw", weight_decay=0.05, schedule=schedule | dict(decay_steps=steps), clip=1.0),
        averages=dict(ema=dict(name="WarmedUp", decay=decay)),
        train=dict(
            steps=steps,
            log_every=100,
            eval_every=every,
            sample_every=0,
            checkpoint_every=every,
            keep=dict(last=2, every=0),
        ),
        eval=dict(what="HeldOutLoss, AccuracyPerLevel", batch_size=batch_size),
    )


def of_process(config: str, variant: str, words: dict[str, str | None], pixels: int, side: int) -> dict[str, Any]:
    """Return the sections sde, parametrization, objective and sample of a process without Gaussian noise.

    Args:
        config, variant: names for messages.
        words: the chosen words; `task` is one of PROCESSES.
        pixels: number of pixels of an example.
        side: height of a picture; `cold` blurs with up to a quarter of it.

    Raises:
        InputError: if the word of a process is beside a word of another way from data to noise.
    """
    _refuse_beside_task(config, variant, words, "labels", "'conditional'")
    room = "score_sde.nongaussian."
    x0 = dict(name="X0", time_label="scaled_time")
    if words["task"] == "cold":
        return dict(
            sde=dict(name=f"{room}Blurring", std_max=side / 4),
            parametrization=x0,
            objective=dict(name=f"{room}Restoration", norm="l1"),
            sample=dict(sampler=dict(name=f"{room}Cold"), grid=dict(name="default", n=20)),
        )
    one_step = words["task"] == "one_step"
    return dict(
        sde=dict(name=f"{room}PixelNoise", pixels=pixels),
        parametrization=dict(name=f"{room}PreviousState", time_label="scaled_time") if one_step else x0,
        objective=dict(name=f"{room}OneStep")
        if one_step
        else dict(name=f"{room}Restoration", norm="l2", times="knots"),
        sample=dict(
            sampler=dict(name=f"{room}Stepwise" if one_step else f"{room}Renoise"),
            grid=dict(name="default", n=pixels),
        ),
    )


def sampling(
    sde: str,
    parametrization: str,
    sampler: str | None,
    steps: int,
    deterministic: Collection[str] = ("edm", "rectified_flow"),
    loss: str | None = None,
) -> dict[str, Any]:
    """Return the entries sampler and grid of config.sample; 'pc' is predictor-corrector sampling of Song et al. 2021.

    For the SDEs in `deterministic`, Heun's method solves the probability flow in 40 steps; other SDEs use Ancestral. A
    model with a variance uses Ancestral with this variance.
    """
    if sampler == "pc":
        corrector = dict(name="Langevin", snr=0.16, steps=1, norms="expected")
        pair = dict(name="PredictorCorrector", predictor=dict(name="ReverseDiffusion"), corrector=corrector)
        return dict(sampler=pair, grid=dict(name="default", n=steps))
    variance = variance_of(sde, loss)
    if variance is not None:
        kind = "learned" if variance == "fraction" else "optimal"
        return dict(sampler=dict(name="Ancestral", variance=kind), grid=dict(name="default", n=steps))
    # On a straight line an error e of x_0 is an error e / t of the velocity, which a step to t near 0 would enlarge.
    by_flow = sde in deterministic and (sde, parametrization) != ("rectified_flow", "X0")
    return dict(
        sampler=dict(name="Heun" if by_flow else "Ancestral"),
        grid=dict(name="default", n=40 if by_flow else steps),
    )
