"""These functions write pictures in every form that the library reads, without code of the readers."""

import csv
import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "emu")


def pictures(n=12, height=10, width=14, channels=3, seed=0):
    """Return different uint8 pictures and their classes."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (n, height, width, channels), dtype=np.uint8)
    return values, np.arange(n) % len(CLASSES)


def png(values):
    file = io.BytesIO()
    Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(file, "PNG")
    return file.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def class_folders(root, values, labels, prefix=""):
    for i, (value, label) in enumerate(zip(values, labels)):
        write(root / prefix / CLASSES[label] / f"{i:03d}.png", png(value))


def zipped(path, files, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def tarred(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def idx(array):
    """Return an IDX file of bytes: http://yann.lecun.com/exdb/mnist."""
    return struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def idx_folder(root, values, labels, test=4, packed=True):
    for part, rows in (("train", slice(None, -test)), ("t10k", slice(-test, None))):
        for what, array in (("images-idx3", values[rows, ..., 0]), ("labels-idx1", labels[rows].astype(np.uint8))):
            content = idx(array)
            name = f"{part}-{what}-ubyte" + ".gz" * packed
            write(root / name, gzip.compress(content) if packed else content)


def old_pickle(value):
    """Return a pickle of protocol 2 as Python 2 wrote pickles: text is bytes, and _reconstruct makes arrays."""

    def text(raw):
        return b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + struct.pack("<i", len(raw)) + raw

    def integer(number):
        return b"K" + bytes([number]) if 0 <= number < 256 else b"J" + struct.pack("<i", number)

    def pickled(entry):
        if isinstance(entry, dict):
            return b"}(" + b"".join(pickled(key) + pickled(content) for key, content in entry.items()) + b"u"
        if isinstance(entry, list):
            return b"](" + b"".join(map(pickled, entry)) + b"e"
        if isinstance(entry, int):
            return integer(entry)
        if isinstance(entry, str):
            return text(entry.encode("latin1"))
        make = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        shape = b"(" + b"".join(map(integer, entry.shape)) + b"t"
        return make + b"(K\x01" + shape + dtype + b"\x89" + text(entry.tobytes()) + b"tb"

    return b"\x80\x02" + pickled(value) + b"."


def cifar_files(values, labels, binary, hundred=False, dump=old_pickle):
    """Return {name: content} of CIFAR, and the batch names; pictures (n, 32, 32, 3) fill the batches in order."""
    flat = values.transpose(0, 3, 1, 2).reshape(len(values), -1)
    names = (["train"] if hundred else [f"data_batch_{i}" for i in range(1, 6)]) + ["test" if hundred else "test_batch"]
    parts = np.array_split(np.arange(len(values)), len(names))
    coarse = labels // 2
    files = {}
    for name, rows in zip(names, parts):
        if binary:
            columns = [coarse[rows, None], labels[rows, None]] if hundred else [labels[rows, None]]
            files[name + ".bin"] = np.concatenate([*columns, flat[rows]], axis=1).astype(np.uint8).tobytes()
        else:
            label_columns = {"fine_labels": labels[rows].tolist(), "coarse_labels": coarse[rows].tolist()}
            label_columns = label_columns if hundred else {"labels": labels[rows].tolist()}
            files[name] = dump(
                {"data": np.ascontiguousarray(flat[rows]), **label_columns, "filenames": ["a"] * len(rows)}
            )
    classes = [f"c{i}" for i in range(100 if hundred else 10)]
    if binary:
        files["fine_label_names.txt" if hundred else "batches.meta.txt"] = "\n".join(classes).encode()
    else:
        key = "fine_label_names" if hundred else "label_names"
        files["meta" if hundred else "batches.meta"] = dump({key: classes})
    return files, names


def new_pickle(value):
    return pickle.dumps(value, protocol=2)


def parquet_file(path, values, labels, captions=None):
    """Write a file as HuggingFace's datasets does: a struct of bytes and path, and class names in the schema."""
    import pyarrow
    from pyarrow import parquet

    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    rows = [{"bytes": png(value), "path": f"{i}.png"} for i, value in enumerate(values)]
    columns = {"image": pyarrow.array(rows, kind), "label": pyarrow.array(labels.tolist(), pyarrow.int64())}
    if captions is not None:
        columns["text"] = pyarrow.array(captions)
    features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns).replace_schema_metadata(metadata), path, row_group_size=3)


def metadata_csv(rows):
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def crc32c(data):
    """Return the CRC-32C of data, computed bit by bit from the polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def tfrecord(messages):
    def masked(data):
        crc = crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    records = b""
    for message in messages:
        length = struct.pack("<Q", len(message))
        records += length + masked(length) + message + b"\0\0\0\0"
    return records


def example(**features):
    """Return a serialized tf.train.Example; each field of a message is (number << 3 | 2), length, content."""

    def varint(value):
        out = b""
        while value > 127:
            out += bytes([value & 127 | 128])
            value >>= 7
        return out + bytes([value])

    def field(number, content):
        return varint(number << 3 | 2) + varint(len(content)) + content

    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = field(1, field(1, value))
        else:
            feature = field(3, field(1, b"".join(map(varint, value))))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)
