"""FFHQ, faces of 1024 x 1024 and of 256 x 256: the published configurations of Song et al. 2021.

python main.py --config=configs/ffhq.py:256,ve,ncsnpp --mode=describe

Words: configs/published.py, and 1024 (the default) or 256. Data: images in train/ and test/ of ffhq/.
"""

import ml_collections

from configs import faces

DATA_SET = faces.data_set(
    "ffhq",
    {
        "ve/ffhq_ncsnpp_continuous": "1024,ve,ncsnpp",
        "ve/ffhq_256_ncsnpp_continuous": "256,ve,ncsnpp",
    },
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    # The loss at 1024 pixels is a mean over dimensions here, and half a sum on CelebA-HQ.
    return faces.config(DATA_SET, variant, reduction="mean")
