"""This module defines the data set of a user's own examples: pictures and arrays on the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from score_sde.core import files
from score_sde.core.checks import AUTO, is_number, is_whole, shown
from score_sde.core.errors import InputError
from score_sde.data.base import Dataset, Source, folder_of
from score_sde.data.choosing import chosen, is_auto, is_pictures
from score_sde.data.codec import Codec, ContinuousCodec, QuantizedCodec
from score_sde.data.declared import Declared, declare, normalised
from score_sde.data.prepared import Prepared, Recipe
from score_sde.data.survey import Survey, survey, told
from score_sde.readers.pictures import Collection, Fit, Unreadable, open_collection, reading

_LARGEST = 2**14  # largest side of a picture in pixels


class Files(Dataset):
    """`Files` reads a user's own examples, in all formats of `score_sde.readers.pictures.open_collection`.

    Pictures become uint8 of one size, as described in `Fit`. Arrays of whole numbers stay unchanged. Arrays of real
    numbers are standardised with the mean and the standard deviation of the training split. Each example is decoded
    once, into a cache. Arguments that are 'auto' are derived from the data; `arguments` holds the resulting values, so
    that a config can store them. A data set with all arguments known is created without access to its files.

    Args:
        path: path of the examples.
        size: size of pictures: (height, width), or one number for both.
        channels: number of channels of pictures: 1, 3 or 4.
        way, crop, filter, background, most_pixels: settings for pictures, as in `Fit`.
        held_out: share of examples that is held out if the source has no splits.
        broken: 'refuse' raises InputError for pictures that cannot be read, 'skip' omits these pictures.
        shape: shape of an example of arrays.
        maximum: largest whole number; None for real numbers.
        mean, std: mean and standard deviation of real numbers.
        classes: names of the classes, or the number of classes; 0 for no classes.
        text: number of bytes of a caption; 0 for no captions.
        others: {name: shape} of further conditions.
        dir: folder of prepared data; None for the user's cache.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = "",
        size: Any = AUTO,
        channels: Any = AUTO,
        way: str = "crop",
        crop: int = 0,
        filter: str = "bicubic",
        background: Sequence[int] = (255, 255, 255),
        most_pixels: int = Fit.most_pixels,
        held_out: Any = AUTO,
        broken: str = "refuse",
        shape: Any = AUTO,
        maximum: Any = AUTO,
        mean: Any = 0.0,
        std: Any = 1.0,
        classes: Any = AUTO,
        text: Any = AUTO,
        others: Any = AUTO,
        dir: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(broken, str) or broken not in ("refuse", "skip"):
            raise InputError(f"data.broken is {shown(broken)}; expected 'refuse' or 'skip'.")
        if not is_auto(held_out) and not (is_number(held_out) and 0 < held_out < 1):
            raise InputError(f"data.held_out is {shown(held_out)}; expected a share between 0 and 1, or 'auto'.")
        if not isinstance(path, str | os.PathLike):
            raise InputError(f"data.path is {shown(path)}; expected the path of a file or a folder.")
        if not is_auto(size) and size is not None:
            sides = (size, size) if is_whole(size, 1) and not isinstance(size, bool) else size
            pair = isinstance(sides, list | tuple) and len(sides) == 2
            if not pair or not all(is_whole(side, 1) and side <= _LARGEST for side in sides):
                raise InputError(
                    f"data.size is {shown(size)}; expected a height and a width from 1 to {_LARGEST}, or one number."
                )
            size = (int(sides[0]), int(sides[1]))
        if not isinstance(background, list | tuple):
            raise InputError(f"data.background is {shown(background)}; expected red, green and blue from 0 to 255.")
        for name, value in (("classes", classes), ("others", others), ("text", text)):
            if not (is_auto(value) or isinstance(value, dict if name == "others" else int | list | tuple)):
                raise InputError(
                    f"data.{name} is {shown(value)}; expected a value as the docstring of {type(self).__name__} states."
                )
        self._given: dict[str, Any] = dict(
            path=str(path), size=size, channels=channels, way=way, crop=crop, filter=filter,
            background=tuple(background), most_pixels=most_pixels, held_out=held_out, broken=broken, shape=shape,
            maximum=maximum, mean=mean, std=std, classes=classes, text=text, others=others,
        )  # fmt: skip
        self._root = folder_of(dir) / "prepared"
        unknown = [name for name, value in self._given.items() if is_auto(value)]
        self.arguments: dict[str, Any] = self._given
        if unknown:
            self.arguments = chosen(self._collection, self._declaration[0], self._given, lambda: self._survey)
        arguments = self.arguments
        self._declared = Declared(arguments["classes"], arguments["text"], arguments["others"])
        self.conditions = self._declared.conditions()
        self.codec = self._codec()

    def source(self, split: str) -> Source:
        return self._prepared.rows(split)

    def prepare(self) -> None:
        """Decode all examples into the cache, unless the cache already contains them."""
        self._prepared.prepare()

    def count(self) -> int:
        return len(self._collection)

    def lines(self) -> list[str]:
        """Return sentences that describe the data and their preparation; prepare the data if necessary."""
        collection, manifest = self._collection, self._prepared.prepare()
        counts = manifest["counts"]
        lines = [f"{collection.where}: {len(collection):,} examples in {collection.kind}"]
        if is_pictures(collection):
            lines += self._survey.lines()
        fit = ""
        if self._fit is not None:
            fit = f" ({self._fit.way}, {self._fit.filter})"
        lines.append(f"examples become {' x '.join(map(str, self.shape))}{fit}, prepared in {self._prepared.folder}")
        if self._declared.count:
            lines.append(self._class_line())
        if "text" in self.conditions:
            texts = sum(entry is not None for entry in collection.columns["text"])
            lines.append(f"captions: {texts:,}, each limited to {self._declared.text} bytes")
        if self._declared.others:
            lines.append(f"other conditions: {', '.join(self._declared.others)}")
        how = "as in the source" if collection.splits else f"a share of {self.arguments['held_out']:g}, by name"
        lines.append(f"for training {counts['train']:,}, held out {counts['test']:,} ({how})")
        if manifest["duplicates"]:
            both = manifest["on_both_sides"]
            lines.append(
                f"duplicates: {manifest['duplicates']:,}"
                + (f", of which {both:,} are in both splits of the source" if both else "")
            )
        if manifest["broken_count"]:
            count = manifest["broken_count"]
            lines.append(f"skipped because unreadable: {count:,}: {told(manifest['broken'], count)}")
        return lines + list(collection.notes) + list(self._declaration[1])

    def _class_line(self) -> str:
        labels = [entry for entry in self._collection.columns["label"] if entry is not None]
        names = self.arguments["classes"]
        count: dict[Any, int] = {}
        for label in labels:
            name = names[label] if not isinstance(names, int) and isinstance(label, int) else label
            count[name] = count.get(name, 0) + 1
        few = ", ".join(
            f"{name} {number:,}" for name, number in sorted(count.items(), key=lambda pair: str(pair[0]))[:12]
        )
        lonely = sum(number == 1 for number in count.values())
        return (
            f"classes: {self._declared.count:,} ({few}{', ...' * (len(count) > 12)})"
            + f"; {lonely:,} with one example, which is for training" * (lonely > 0)
            + f"; without a class: {len(self._collection) - len(labels):,}" * (len(labels) < len(self._collection))
        )

    @functools.cached_property
    def _collection(self) -> Collection:
        found = open_collection(self._given["path"])
        return dataclasses.replace(found, columns=normalised(found.columns))

    @functools.cached_property
    def _survey(self) -> Survey:
        """Return the survey of the pictures.

        The survey is stored next to the prepared data, because reading many headers takes a while.
        """
        path = self._root / f"survey-{self._collection.digest()}.json"
        try:
            kept = json.loads(path.read_text())
            sizes = {(height, width): count for height, width, count in kept.pop("sizes")}
            return Survey(sizes=sizes, broken=tuple(kept.pop("broken")), **kept)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            found = survey(self._collection)
        kept = dataclasses.asdict(found) | {"sizes": [(*size, count) for size, count in found.sizes.items()]}
        try:
            files.write_text(path, json.dumps(kept))
        except OSError as error:
            raise InputError(
                f"{path.parent} cannot be written ({error.strerror}): name another folder with --config.data.dir."
            ) from error
        return found

    @functools.cached_property
    def _declaration(self) -> tuple[Declared, tuple[str, ...]]:
        try:
            return declare(self._collection.columns, self._collection.classes)
        except InputError as error:
            raise InputError(f"{self._collection.where}: {error}") from error

    @functools.cached_property
    def _fit(self) -> Fit | None:
        arguments = self.arguments
        if arguments["shape"] is not None:
            return None
        names = ("channels", "way", "crop", "filter", "background", "most_pixels")
        return Fit(*arguments["size"], **{name: arguments[name] for name in names})

    def _codec(self) -> Codec:
        arguments = self.arguments
        shape = self._fit.shape if self._fit is not None else tuple(arguments["shape"])
        if self._fit is not None and arguments["maximum"] != 255:
            raise InputError(f"data.maximum is {arguments['maximum']!r}; expected 255, the maximum of pictures.")
        if arguments["maximum"] is None:
            return ContinuousCodec(shape, np.asarray(arguments["mean"]), np.asarray(arguments["std"]))
        return QuantizedCodec(shape, arguments["maximum"])

    @functools.cached_property
    def _prepared(self) -> Prepared:
        arguments, fit = self.arguments, self._fit
        if fit is None:
            dtype = np.float32 if arguments["maximum"] is None else np.uint8 if arguments["maximum"] < 256 else np.int32
            settings: dict[str, Any] = {"dtype": np.dtype(dtype).name}
            decoding = functools.partial(_numbers, shape=self.shape, dtype=dtype, maximum=arguments["maximum"])
        else:
            dtype, settings = np.uint8, dataclasses.asdict(fit)
            decoding = functools.partial(_pictures, fit=fit)
        recipe = Recipe(
            self.shape, dtype, decoding, settings, self._declared, arguments["held_out"], arguments["broken"] == "skip"
        )
        return Prepared(self._root, self._collection, recipe)


_Decode = Callable[[Iterable[Any]], Iterator[Any]]


@contextlib.contextmanager
def _pictures(n: int, fit: Fit) -> Iterator[_Decode]:
    with reading(n) as read:
        yield lambda examples: read(examples, fit)


@contextlib.contextmanager
def _numbers(n: int, **settings: Any) -> Iterator[_Decode]:
    def decode(examples: Iterable[Any]) -> Iterator[Any]:
        for example in examples:
            try:
                yield example if isinstance(example, Exception) else _values(example, **settings)
            except (Unreadable, InputError) as error:
                yield error

    yield decode


def _values(example: bytes | np.ndarray, shape: tuple[int, ...], dtype: Any, maximum: int | None) -> np.ndarray:
    """Return the values of one example of an array, after checks."""
    if isinstance(example, bytes):
        raise InputError("The examples are pictures, but data.shape is set, as for arrays; expected data.shape=None.")
    with np.errstate(over="ignore"):
        values = np.asarray(example, dtype)
    if values.shape != tuple(shape):
        raise Unreadable(f"has the shape {values.shape}; expected {tuple(shape)}")
    if maximum is None and not np.isfinite(values).all():
        raise Unreadable("contains NaN, infinity or numbers too large for float32")
    if maximum is not None and example.size and not (example.min() >= 0 and example.max() <= maximum):
        raise Unreadable(f"has values from {example.min()} to {example.max()}; expected 0 to {maximum}")
    return values
