"""This config trains on digits of 8 x 8 pixels, the smallest real data set, in minutes on two CPU cores.

python main.py --config=configs/digits.py --workdir=runs/digits --mode=train,eval,sample

Variants, joined by commas: an SDE (a word of configs/variants.py), a parametrisation (noise, score, x0, velocity, v,
preconditioned), conditional, likelihood (likelihood weighting with its sampling of times; not for chains and
rectified_flow, where g^2 does not exist at every time), pc (sample with predictor and corrector). `classifier`, with or
without an SDE, trains a classifier of noised digits, which guides models of digits. `naive`, `one_step` and `cold` have
no Gaussian noise (docs/nongaussian.md). The default SDE is edm: after 1,000 steps edm has fewer bits per dimension than
vp after 2,000 (docs/performance.md). If a variant has a parametrisation, likelihood or pc, but no SDE, the SDE is vp.
"""

from typing import Any

import ml_collections

from score_sde import config as config_
from score_sde.configs import variants

DATA_STD = 0.75


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    words = variants.choose("configs/digits.py", variant, task=(*variants.TASKS, *variants.PROCESSES))
    if words["task"] in variants.TASKS:
        made = variants.classifier(
            "configs/digits.py",
            variant,
            words,
            DATA_STD,
            steps=1500,
            data=dict(name="Digits", dir="", batch_size=64, flip=False),
            network=dict(channels=32, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.2),
        )
        return config_.complete(made)
    made = _of_process(variant, words) if words["task"] else _of_sde(words)
    network = dict(
        name="DDPMpp",
        channels=32,
        multipliers=(1, 2),
        blocks=1,
        attention=(4,),
        dropout=0.0,
        dtype="float32",
        remat="none",
    )
    return config_.complete(
        made
        | dict(
            data=variants.data(words, name="Digits", dir="", batch_size=64),
            network=network | made["network"],
            optimizer=dict(
                name="adam",
                schedule=dict(name="warmup_constant_schedule", init_value=0.0, peak_value=2e-3, warmup_steps=100),
                clip=1.0,
            ),
            averages=dict(ema=dict(name="WarmedUp", decay=0.997)),
            train=dict(
                log_every=100,
                eval_every=500,
                sample_every=0,
                checkpoint_every=500,
                keep=dict(last=2, every=1000),
                **made["train"],
            ),
            sample=dict(n=100, batch_size=100, **made["sample"]),
            eval=dict(batch_size=150, **made["eval"]),
        )
    )


def _of_sde(words: dict[str, str | None]) -> dict[str, Any]:
    """Return the sections, or parts of them, that the SDE determines."""
    sde = variants.sde_of(words, "edm")
    model = variants.model(sde, words["parametrization"], DATA_STD, words["loss"])
    meaning = model["parametrization"]["name"]
    return dict(
        **model,
        network=variants.embedding(sde),
        objective=variants.objective(sde, meaning, words["loss"], DATA_STD),
        train=dict(steps=1000 if sde == "edm" else 2000),
        sample=_sampling(sde, meaning, words),
        eval=dict(what="HeldOutLoss, LossPerLevel, Likelihood(probes=2, rtol=1e-3, atol=1e-3)"),
    )


def _sampling(sde: str, parametrization: str, words: dict[str, str | None]) -> dict[str, Any]:
    """Return the entries sampler and grid of config.sample, as measured in docs/samplers.md.

    New noise in each step corrects the errors of a small network; a probability flow keeps them.
    """
    if sde in ("edm", "vp") and not words["sampler"] and variants.variance_of(sde, words["loss"]) is None:
        return dict(sampler=dict(name="SASolver", order=2), grid=dict(name="log_snr", n=50))
    return variants.sampling(
        sde, parametrization, words["sampler"], steps=250, deterministic=("rectified_flow",), loss=words["loss"]
    )


def _of_process(variant: str, words: dict[str, str | None]) -> dict[str, Any]:
    """Return the sections, or parts of them, of a process without Gaussian noise."""
    return variants.of_process("configs/digits.py", variant, words, pixels=64, side=8) | dict(
        network=dict(embedding="positional", coordinates=words["task"] != "cold"),
        train=dict(steps=2000),
        eval=dict(what="HeldOutLoss, LossPerLevel"),
    )
