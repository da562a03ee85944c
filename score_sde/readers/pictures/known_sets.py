"""This module reads the lmdb of LSUN, and data sets that tensorflow-datasets has prepared."""

from __future__ import annotations

import pathlib
import threading
from typing import Any

import numpy as np

from score_sde.core.errors import InputError
from score_sde.readers.pictures.collection import SPLITS, TRAIN, Collection, stamp_of
from score_sde.readers.refusal import shown


def of_lmdb(where: pathlib.Path) -> Collection:
    """Return the encoded pictures of an lmdb, in the order of their keys.

    Raises:
        InputError: if the package lmdb is missing, or if the package cannot open the folder.
    """
    try:
        import lmdb
    except ImportError as error:
        raise InputError(f"{where} is an lmdb; expected the package lmdb: pip install 'score_sde[lmdb]'.") from error
    try:
        store = lmdb.open(str(where), readonly=True, lock=False, readahead=False)
        with store.begin() as reading, reading.cursor() as cursor:
            keys = [bytes(key) for key in cursor.iternext(values=False)]
    except lmdb.Error as error:
        raise InputError(f"{where} cannot be opened as an lmdb ({shown(error, 120)}): get it again.") from error

    def get(number: int) -> bytes:
        try:
            with store.begin() as reading:
                return bytes(reading.get(keys[number]) or b"")
        except lmdb.Error as error:
            raise InputError(f"{where}, key {shown(keys[number])}, cannot be read ({shown(error, 120)}).") from error

    if not keys:
        raise InputError(f"{where} is an lmdb without entries; expected pictures.")
    stamp = stamp_of(where / "data.mdb")
    return Collection("an lmdb", where, [key.decode("latin1") for key in keys], get, lambda _: stamp)


def of_tfds(where: pathlib.Path) -> Collection:
    """Return the pictures that tensorflow-datasets has prepared as array_record or parquet, without TensorFlow.

    Raises:
        InputError: if the file format is another, or if no feature holds pictures.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(where)
        form = str(builder.info.file_format.value)
        found = {name: SPLITS[name] for name in builder.info.splits if name in SPLITS}
        if form not in ("array_record", "parquet"):
            raise InputError(
                f"{where} was prepared as {form}, which only TensorFlow reads; prepare it again with "
                "download_and_prepare(file_format='array_record')."
            )
        if TRAIN not in found.values():
            raise InputError(f"{where} has the splits {', '.join(builder.info.splits)}; expected train.")
        if "test" in found and len(found) > 2:  # only one split is held out
            found = {name: part for name, part in found.items() if name in (TRAIN, "test")}
        sources = {name: builder.as_data_source(split=name) for name in found}
        features = dict(builder.info.features.items())
    except InputError:
        raise
    except Exception as error:  # a damaged folder causes many kinds of exceptions
        raise InputError(
            f"{where} cannot be read as a data set of tensorflow-datasets ({shown(error, 120)})."
        ) from error
    picture = next((name for name, feature in features.items() if isinstance(feature, tfds.features.Image)), None)
    if picture is None:
        raise InputError(f"{where} has the features {shown(', '.join(features), 200)}; expected a feature of pictures.")
    lock = threading.Lock()
    places = [(name, row) for name, source in sources.items() for row in range(len(source))]

    def record(number: int) -> dict[str, Any]:
        name, row = places[number]
        try:
            with lock:
                return dict(sources[name][row])
        except Exception as error:  # as above
            raise InputError(f"{where}, record {row} of {name}, cannot be read ({shown(error, 120)}).") from error

    label = next((name for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)), None)
    columns = {"label": [int(record(number)[label]) for number in range(len(places))]} if label else {}
    stamp = stamp_of(where)
    return Collection(
        f"a data set of tensorflow-datasets ({form})",
        where,
        [f"{name}/{row:08d}" for name, row in places],
        lambda number: np.asarray(record(number)[picture]),
        lambda number: stamp,
        [found[name] for name, _ in places] if len(found) > 1 else None,
        columns,
        tuple(features[label].names) if label else (),
    )
