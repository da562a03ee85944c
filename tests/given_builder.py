"""The builder of tensorflow-datasets in this file prepares pictures that a test assigns to the class."""

import io

import tensorflow_datasets as tfds

from tests import given_files as given


class Drawn(tfds.core.GeneratorBasedBuilder):
    """`Drawn` has twelve pictures with classes: eight for training and the rest for testing."""

    VERSION = tfds.core.Version("1.0.0")
    values = labels = None

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=list(given.CLASSES)),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(8)), "test": self._generate_examples(range(8, 12))}

    def _generate_examples(self, rows):
        for i in rows:
            yield i, {"image": io.BytesIO(given.png(self.values[i])), "label": int(self.labels[i])}
