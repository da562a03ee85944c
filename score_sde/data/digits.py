"""The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import tempfile

from score_sde.core.errors import InputError
from score_sde.data.base import Arrays, Dataset, Records, Source, all_examples, cache_dir
from score_sde.data.transform import QuantizedTransform


class Digits(Dataset):
    """Handwritten digits 0-9, 8 x 8 pixels with values 0 .. 16: 1,500 for training, 297 for testing.

    The data are E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998),
    as in scikit-learn's load_digits; the split keeps its order. They are written once to array_record
    files by a tensorflow-datasets builder, which needs no TensorFlow and no network.

    Args:
        dir: where prepared data live; None for the user's cache.
    """

    shape = (8, 8, 1)
    num_classes = 10
    transform = QuantizedTransform(16)

    def __init__(self, dir: str | os.PathLike[str] | None = None) -> None:
        self.dir = pathlib.Path(dir).expanduser() if dir else cache_dir() / "data"

    def source(self, split: str) -> Source:
        import tensorflow_datasets as tfds

        folder = self._prepare()
        try:
            records = tfds.builder_from_directory(folder).as_data_source(split=split)
            len(records)  # opens the file
        except Exception as error:  # whatever a damaged file makes the reader raise
            raise InputError(
                f"The prepared data in {folder} cannot be read ({type(error).__name__}: {str(error)[:120]}): delete "
                "that folder, and they are prepared again."
            ) from error
        # So small that reading it once is cheaper than every record again in every epoch.
        return Arrays(**all_examples(Records(records, f"digits, split {split}", folder)))

    def _prepare(self) -> pathlib.Path:
        from score_sde.data.digits_builder import DigitsBuilder

        relative = pathlib.Path(DigitsBuilder.name) / str(DigitsBuilder.VERSION)
        final = self.dir / relative
        if not final.exists():
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
