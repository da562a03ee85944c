"""This module defines the tensorflow-datasets builder of the digits.

The builder has a separate module, because the import of tensorflow-datasets takes a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

_TRAIN = 1500

tfds.disable_progress_bar()


class DigitsBuilder(tfds.core.GeneratorBasedBuilder):
    """`DigitsBuilder` yields the digits in scikit-learn's order: the first 1,500 are 'train', the other 297 'test'."""

    name = "digits"
    VERSION = tfds.core.Version("2.0.0")  # in 1.0.0 the name of the values was images

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8)
        features = tfds.features.FeaturesDict({"values": image, "label": tfds.features.ClassLabel(num_classes=10)})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {"train": self._generate_examples(0, _TRAIN), "test": self._generate_examples(_TRAIN, None)}

    def _generate_examples(self, start: int, stop: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pairs = zip(digits.images[start:stop], digits.target[start:stop], strict=True)
        for number, (image, label) in enumerate(pairs):
            yield number, {"values": image.astype(np.uint8)[..., None], "label": int(label)}
