"""This module makes the published configurations of Song et al. 2021 for LSUN bedrooms and churches, 256 x 256.

python main.py --config=configs/lsun.py:church,ve,ncsnpp --mode=describe

Words: see configs/published.py, and bedroom (the default) or church. The default SDE and network are ve,ncsnpp.
Data: images in train/ and test/ of lsun_bedroom/ or lsun_church/.
"""

import dataclasses

import ml_collections

from score_sde.configs import published

OLD = {
    "ve/bedroom_ncsnpp_continuous": "bedroom,ve,ncsnpp",
    "ve/church_ncsnpp_continuous": "church,ve,ncsnpp",
    "ve/ncsnv2/bedroom": "bedroom,ve,ncsnv2",
    "vp/ddpm/bedroom": "bedroom,vp,ddpm,discrete",
    "vp/ddpm/church": "church,vp,ddpm,discrete",
}
DATA_SET = published.DataSet(
    file="configs/lsun.py",
    data=dict(name="ImageFolder", size=256, crop=0),
    sigma_max=378,
    scales=2000,
    snr=0.075,
    batch_size=64,
    steps=2_400_000,
    dropout=0.0,
    old=OLD,
    versions=("bedroom", "church"),
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    words = published.choose(DATA_SET, variant)
    here = dataclasses.replace(DATA_SET, data=DATA_SET.data | dict(folder=f"lsun_{words['version']}"))
    if words["version"] == "church":
        here = dataclasses.replace(here, sigma_max=380)
    if words["network"] == "ddpm":
        return published.config(
            here, words, dict(multipliers=(1, 1, 2, 2, 4, 4), blocks=2), optimizer__schedule__peak_value=2e-5
        )
    if words["network"] in published.REFINE:
        here = dataclasses.replace(here, data=here.data | dict(size=128), batch_size=128)
        here = dataclasses.replace(here, sigma_max=190)
        return published.refine(here, words, levels=1086, snr=0.095, steps=3, averages__ema__decay=0.9999)
    network = dict(multipliers=(1, 1, 2, 2, 2, 2, 2), blocks=8 if words["depth"] else 2)
    return published.config(here, words, network | published.pyramids(words))
