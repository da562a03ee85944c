"""This module makes the published configurations of Song et al. 2021 for CelebA, faces cut to 64 x 64.

python main.py --config=configs/celeba.py:ve,ncsnpp,discrete --mode=describe

Words: see configs/published.py. The default is ve,ncsnpp,discrete.
Data: the aligned images in train/ and test/ of celeba/.
"""

import ml_collections

from score_sde.configs import published

DATA_SET = published.DataSet(
    file="configs/celeba.py",
    data=dict(name="ImageFolder", folder="celeba", size=64, crop=140),
    sigma_max=90,
    scales=1000,
    snr=0.17,
    batch_size=128,
    steps=1_300_000,
    dropout=0.1,
    old={
        "ve/celeba_ncsnpp": "ve,ncsnpp,discrete",
        "ve/ncsn/celeba": "ve,ncsn",
        "ve/ncsn/celeba_124": "ve,ncsn,124",
        "ve/ncsn/celeba_1245": "ve,ncsn,1245",
        "ve/ncsn/celeba_5": "ve,ncsn,5",
        "ve/ncsnv2/celeba": "ve,ncsnv2",
    },
)


def get_config(variant: str = "ve,ncsnpp,discrete") -> ml_collections.ConfigDict:
    return published.small(DATA_SET, variant, levels=500, snr=0.128)
