"""This module defines the data set of 1,797 handwritten digits of 8 x 8 pixels that scikit-learn contains."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import tempfile
import warnings

from score_sde.core.conditions import Conditions, Label
from score_sde.core.errors import InputError
from score_sde.data.base import Arrays, Dataset, Records, Source, all_examples, folder_of
from score_sde.data.codec import QuantizedCodec

_OLD = "1.0.0"  # version of the data that score_sde 0.1 prepared


class Digits(Dataset):
    """`Digits` holds handwritten digits 0-9 of 8 x 8 pixels with values 0 .. 16: 1,500 for training, 297 for testing.

    The data are E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998), as in
    scikit-learn's load_digits. The splits keep the order of load_digits. A tensorflow-datasets builder writes the data
    once to array_record files, without TensorFlow and without network access.

    Args:
        dir: folder of prepared data; None for the user's cache.
    """

    codec = QuantizedCodec((8, 8, 1), 16)
    conditions = Conditions(label=Label(10))

    def __init__(self, dir: str | os.PathLike[str] | None = None) -> None:
        self.dir = folder_of(dir)

    def source(self, split: str) -> Source:
        import tensorflow_datasets as tfds

        folder = self._prepare()
        try:
            records = tfds.builder_from_directory(folder).as_data_source(split=split)
            len(records)  # opens the file
            features = set(records[0])
        except Exception as error:  # a damaged file may raise any exception
            raise InputError(
                f"The prepared data in {folder} cannot be read ({type(error).__name__}: {str(error)[:120]}): delete "
                "that folder to prepare the data again."
            ) from error
        if features != {"values", "label"}:
            raise InputError(
                f"The prepared data in {folder} have {', '.join(sorted(features))}; expected values and label: delete "
                "that folder to prepare the data again."
            )
        # The data set is small: reading all records once is cheaper than reading each record in every epoch.
        return Arrays(**all_examples(Records(records, f"digits, split {split}", folder)))

    def _prepare(self) -> pathlib.Path:
        from score_sde.data.digits_builder import DigitsBuilder

        relative = pathlib.Path(DigitsBuilder.name) / str(DigitsBuilder.VERSION)
        final = self.dir / relative
        if not final.exists():
            old = self.dir / DigitsBuilder.name / _OLD
            if old.exists():
                warnings.warn(f"{old} was prepared by score_sde 0.1 and is not read; it may be deleted.", stacklevel=2)
            self.dir.mkdir(parents=True, exist_ok=True)
            # The data are written to a temporary folder that is then renamed, so that a reader sees all data or none.
            with tempfile.TemporaryDirectory(prefix=".preparing-", dir=self.dir) as aside:
                with contextlib.redirect_stdout(io.StringIO()):
                    DigitsBuilder(data_dir=aside, file_format="array_record").download_and_prepare()
                final.parent.mkdir(exist_ok=True)
                try:
                    os.rename(pathlib.Path(aside) / relative, final)
                except OSError:
                    if not final.exists():  # otherwise another process has prepared the data
                        raise
        return final
