"""This config trains on your own pictures or arrays: a folder, an archive or a file that score_sde.data.Files reads.

python main.py --config=configs/folder.py --config.data.path=PICTURES --workdir=runs/mine --mode=train,sample,report

Size, channels, classes, augmentation, network and dropout are chosen from the data and stored in the config. A flag
may set any of these entries: --config.data.size=64, --config.network.channels=64. If the data have classes, the model
is conditional. Variants, joined by commas: an SDE (a word of configs/variants.py), a parametrisation (noise, score, x0,
velocity, v, preconditioned), unconditional, likelihood, pc. The default SDE is edm, or vp if the variant has a
parametrisation, likelihood or pc.
"""

import ml_collections

from score_sde import config as config_
from score_sde.configs import variants


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    words = variants.choose("configs/folder.py", variant, classes=("unconditional",))
    sde = variants.sde_of(words, "edm")
    # score_sde/experiment/settle.py replaces "auto" by values that fit the data.
    model = variants.model(sde, words["parametrization"], "auto", words["loss"])
    given = dict(given=(), drop={}) if words["classes"] else dict(given="auto", drop={})
    return config_.complete(
        dict(
            data=dict(
                name="Files",
                path="",
                dir="",
                size="auto",
                channels="auto",
                way="crop",
                background=(255, 255, 255),
                held_out="auto",
                broken="refuse",
                conditions="auto",
                batch_size=64,
                flip=False,
                **given,
            ),
            **model,
            network=dict(name="auto", **variants.embedding(sde)),
            objective=variants.objective(sde, model["parametrization"]["name"], words["loss"], "auto"),
            optimizer=dict(
                name="adam",
                schedule=dict(name="warmup_constant_schedule", init_value=0.0, peak_value=5e-4, warmup_steps=500),
                clip=1.0,
            ),
            averages=dict(ema=dict(name="WarmedUp", decay=0.999)),
            train=dict(
                steps=20_000,
                log_every=100,
                eval_every=1000,
                sample_every=2000,
                checkpoint_every=1000,
                keep=dict(last=2, every=10_000),
            ),
            sample=dict(
                **variants.sampling(
                    sde, model["parametrization"]["name"], words["sampler"], steps=250, loss=words["loss"]
                ),
                n=64,
                batch_size=64,
            ),
            eval=dict(what="HeldOutLoss, LossPerLevel, Likelihood(rtol=1e-3, atol=1e-3)", batch_size=64),
        )
    )
