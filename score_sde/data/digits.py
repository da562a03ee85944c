"""The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships."""

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

_OLD = "1.0.0"  # as score_sde 0.1 prepared them


class Digits(Dataset):
    """Handwritten digits 0-9, 8 x 8 pixels with values 0 .. 16: 1,500 for training, 297 for testing.

    The data are E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998),
    as in scikit-learn's load_digits; the split keeps its order. They are written once to array_record
    files by a tensorflow-datasets builder, which needs no TensorFlow and no network.

    Args:
        dir: where prepared data live; None for the user's cache.
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
        except Exception as error:  # whatever a damaged file makes the reader raise
            raise InputError(
                f"The prepared data in {folder} cannot be read ({type(error).__name__}: {str(error)[:120]}): delete "
                "that folder, and they are prepared again."
            ) from error
        if features != {"values", "label"}:
            raise InputError(
                f"The prepared data in {folder} have {', '.join(sorted(features))}; expected values and label: delete "
                "that folder, and they are prepared again."
            )
        # So small that reading it once is cheaper than every record again in every epoch.
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
            # Written aside and renamed, so that a reader sees all of it or nothing.
            with tempfile.TemporaryDirectory(prefix=".preparing-", dir=self.dir) as aside:
                with contextlib.redirect_stdout(io.StringIO()):
                    DigitsBuilder(data_dir=aside, file_format="array_record").download_and_prepare()
                final.parent.mkdir(exist_ok=True)
                try:
                    os.rename(pathlib.Path(aside) / relative, final)
                except OSError:
                    if not final.exists():  # else another process was faster
                        raise
        return final
