"""Examples of the user's own: pictures and arrays as they lie on the disk."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from score_sde.core import files
from score_sde.core.checks import as_shape, is_number, is_whole, shown
from score_sde.core.errors import InputError
from score_sde.data.base import Dataset, Source, folder_of
from score_sde.data.codec import Codec, ContinuousCodec, QuantizedCodec
from score_sde.data.declared import Declared, declare
from score_sde.data.parting import alike, held_out
from score_sde.data.prepared import Prepared, Recipe
from score_sde.data.survey import Survey, survey, told
from score_sde.readers.pictures import Collection, Fit, decode, fit_array, open_collection

AUTO = "auto"
_MOST_HELD_OUT = 1000
_SHARE = 0.1
_PER_DIMENSION = 64  # numbers of a vector up to which each is standardised by itself


class Files(Dataset):
    """Examples of the user's own: whatever `score_sde.readers.pictures.open_collection` knows.

    Pictures become uint8 of one size (`Fit` says how), arrays of whole numbers stay as they are, and arrays of real
    numbers are standardised by the mean and the standard deviation of the training part. Everything is decoded once,
    into a cache. What is 'auto' is found out from the data; `arguments` then says it, so that a config can keep it, and
    a data set whose arguments are all known is made without its files.

    Args:
        path: where the examples are.
        size: of pictures: (height, width), or one number for both.
        channels: of pictures: 1, 3 or 4.
        way, crop, filter, background, most_pixels: of pictures, as `Fit` has them.
        held_out: the share that is held out where the source has no parts.
        broken: 'refuse' pictures that cannot be read, or 'skip' them.
        shape: of arrays: that of an example.
        maximum: the largest whole number; None for real numbers.
        mean, std: of real numbers.
        classes: the names of the classes, or how many there are; 0 for none.
        text: the bytes of a caption; 0 for none.
        others: {name: shape} of further conditions.
        dir: where prepared data are kept; None for the user's cache.
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
        if broken not in ("refuse", "skip"):
            raise InputError(f"data.broken is {shown(broken)}; expected 'refuse' or 'skip'.")
        if held_out != AUTO and not (is_number(held_out) and 0 < held_out < 1):
            raise InputError(f"data.held_out is {shown(held_out)}; expected a share between 0 and 1, or 'auto'.")
        if size != AUTO:
            size = (int(size),) * 2 if is_whole(size, 1) else as_shape("data.size", size)
            if len(size) != 2:
                raise InputError(f"data.size is {shown(size)}; expected a height and a width, or one number for both.")
        self._given: dict[str, Any] = dict(
            path=str(path), size=size, channels=channels, way=way, crop=crop, filter=filter,
            background=tuple(background), most_pixels=most_pixels, held_out=held_out, broken=broken, shape=shape,
            maximum=maximum, mean=mean, std=std, classes=classes, text=text, others=others,
        )  # fmt: skip
        self._root = folder_of(dir) / "prepared"
        unknown = [name for name, value in self._given.items() if isinstance(value, str) and value == AUTO]
        self.arguments: dict[str, Any] = self._settled() if unknown else self._given
        arguments = self.arguments
        self._declared = Declared(arguments["classes"], arguments["text"], arguments["others"])
        self.conditions = self._declared.conditions()
        self.codec = self._codec()

    def source(self, split: str) -> Source:
        return self._prepared.rows(split)

    def prepare(self) -> None:
        """Decode everything into the cache, if it is not there."""
        self._prepared.prepare()

    def count(self) -> int:
        return len(self._collection)

    def lines(self) -> list[str]:
        """What was found and what is made of it, in sentences; prepares the data if need be."""
        self.prepare()
        collection, manifest = self._collection, self._prepared.manifest
        counts = manifest["counts"]
        lines = [f"{collection.where}: {len(collection):,} examples in {collection.kind}"]
        if self._is_pictures:
            lines += self._survey.lines()
        fit = ""
        if self._fit is not None:
            fit = f" ({self._fit.way}, {self._fit.filter})"
        lines.append(f"examples become {' x '.join(map(str, self.shape))}{fit}, prepared in {self._prepared.folder}")
        if self._declared.count:
            lines.append(self._class_line())
        if "text" in self.conditions:
            texts = sum(entry is not None for entry in collection.columns["text"])
            lines.append(f"captions: {texts:,}, of up to {self._declared.text} bytes")
        how = "as the source says" if collection.splits else f"a share of {self.arguments['held_out']:g}, by name"
        lines.append(f"for training {counts['train']:,}, held out {counts['test']:,} ({how})")
        if manifest["duplicates"]:
            both = manifest["on_both_sides"]
            lines.append(
                f"duplicates: {manifest['duplicates']:,}"
                + (f", of which {both:,} held out and in training, as the source has them" if both else "")
            )
        if manifest["broken_count"]:
            lines.append(f"left out, unreadable: {manifest['broken_count']:,}: {told(manifest['broken'])}")
        return lines + list(collection.notes) + list(self._notes)

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
            + f"; {len(self._collection) - len(labels):,} examples have none" * (len(labels) < len(self._collection))
        )

    @functools.cached_property
    def _collection(self) -> Collection:
        return open_collection(self._given["path"])

    @functools.cached_property
    def _survey(self) -> Survey:
        """The survey of pictures, which is kept beside what is prepared: reading many headers takes a while."""
        path = self._root / f"survey-{self._collection.digest()}.json"
        try:
            plain = json.loads(path.read_text())
            sizes = {(height, width): count for height, width, count in plain.pop("sizes")}
            broken = tuple((name, why) for name, why in plain.pop("broken"))
            return Survey(sizes=sizes, broken=broken, **plain)
        except (OSError, ValueError, TypeError, KeyError):
            found = survey(self._collection)
        plain = dataclasses.asdict(found) | {"sizes": [(*size, count) for size, count in found.sizes.items()]}
        files.write_text(path, json.dumps(plain))
        return found

    @property
    def _is_pictures(self) -> bool:
        """Whether examples are encoded, or arrays of bytes in the shape of pictures."""
        values = self._collection.values
        return values is None or (values.dtype == np.uint8 and values.ndim == 4 and values.shape[3] <= 4)

    @functools.cached_property
    def _declaration(self) -> tuple[Declared, tuple[str, ...]]:
        return declare(self._collection.columns, self._collection.classes)

    @property
    def _notes(self) -> tuple[str, ...]:
        return self._declaration[1]

    def _settled(self) -> dict[str, Any]:
        """The arguments with what is 'auto' found out from the data."""
        collection, declared = self._collection, self._declaration[0]
        found: dict[str, Any] = dict(classes=declared.classes, text=declared.text, others=dict(declared.others))
        found["held_out"] = min(_SHARE, _MOST_HELD_OUT / len(collection))
        if len(collection) < 2:
            raise InputError(f"{collection.where} has one example; expected two or more, as one part is held out.")
        self._check_parts()
        if self._is_pictures:
            found |= dict(shape=None, maximum=255)
            needed = AUTO in (self._given["size"], self._given["channels"])
            if needed:
                found |= dict(size=self._survey.size(), channels=self._survey.channels())
        else:
            values = collection.values
            assert values is not None
            found |= dict(size=None, channels=None, shape=tuple(values.shape[1:]))
            if values.dtype.kind in "iu":
                if values.min() < 0:
                    raise InputError(
                        f"{collection.where} has {values.min()}; expected whole numbers from 0, or real numbers."
                    )
                found["maximum"] = max(255, int(values.max()))
            else:
                found |= dict(maximum=None) | self._moments(values, found["held_out"])
        given = self._given
        return given | {name: value for name, value in found.items() if given[name] == AUTO or name in ("mean", "std")}

    def _check_parts(self) -> None:
        splits, labels = self._collection.splits, self._collection.columns.get("label")
        if splits is None:
            return
        counts = {part: sum(split == part for split in splits) for part in ("train", "test")}
        if not all(counts.values()):
            raise InputError(f"{self._collection.where} has parts of the data without examples ({counts}).")
        if labels is not None:
            for part in counts:
                mine = [label for label, split in zip(labels, splits, strict=True) if split == part]
                if all(label is None for label in mine):
                    raise InputError(
                        f"{self._collection.where} has labels, and none in its part {part!r}; expected them in both "
                        "parts, or in none."
                    )

    def _moments(self, values: np.ndarray, share: Any) -> dict[str, Any]:
        """Mean and standard deviation of the training part; of vectors of up to 64 numbers those of each number."""
        if (self._given["mean"], self._given["std"]) != (0.0, 1.0):
            return {}
        finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if not finite.all():
            name = self._collection.names[int(np.argmin(finite))]
            raise InputError(f"{name} of {self._collection.where} contains NaN or infinity; expected finite numbers.")
        share = share if self._given["held_out"] == AUTO else self._given["held_out"]
        splits = self._collection.splits
        if splits is None:
            digests = np.stack([np.frombuffer(_digest(row), np.uint8) for row in np.asarray(values, np.float32)])
            is_test = held_out(self._collection.names, alike(digests), None, share)
        else:
            is_test = np.asarray([split == "test" for split in splits])
        train = np.asarray(values[~is_test], np.float64)
        axis = 0 if train.ndim == 2 and train.shape[1] <= _PER_DIMENSION else None
        std = np.asarray(train.std(axis=axis))
        if not std.all():
            raise InputError(
                f"{self._collection.where} has numbers that are the same in all examples; expected them to differ."
            )
        return dict(mean=np.asarray(train.mean(axis=axis)).tolist(), std=std.tolist())

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
        if arguments["maximum"] is None:
            return ContinuousCodec(shape, np.asarray(arguments["mean"]), np.asarray(arguments["std"]))
        return QuantizedCodec(shape, arguments["maximum"])

    @functools.cached_property
    def _prepared(self) -> Prepared:
        arguments, fit = self.arguments, self._fit
        if fit is None:
            dtype = np.float32 if arguments["maximum"] is None else np.uint8 if arguments["maximum"] < 256 else np.int32
            settings: dict[str, Any] = {"dtype": np.dtype(dtype).name}
            convert = functools.partial(np.asarray, dtype=dtype)
        else:
            dtype, settings = np.uint8, dataclasses.asdict(fit)
            convert = functools.partial(_pixels, fit=fit)
        recipe = Recipe(
            self.shape, dtype, convert, settings, self._declared, arguments["held_out"], arguments["broken"] == "skip"
        )
        return Prepared(self._root, self._collection, recipe)


def _pixels(example: bytes | np.ndarray, fit: Fit) -> np.ndarray:
    return decode(example, fit) if isinstance(example, bytes) else fit_array(example, fit)


def _digest(row: np.ndarray) -> bytes:
    return hashlib.blake2b(row.tobytes(), digest_size=16).digest()
