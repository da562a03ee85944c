"""Readers of examples as people have them: pictures in folders and archives, arrays, files of known data sets."""

from score_sde.readers.pictures.collection import Collection, Columns
from score_sde.readers.pictures.image import Fit, Header, Unreadable, decode, fit_array, header
from score_sde.readers.pictures.layout import ENDINGS, ending
from score_sde.readers.pictures.recognise import open_collection
from score_sde.readers.pictures.tree import FolderTree

__all__ = [
    "ENDINGS",
    "Collection",
    "Columns",
    "Fit",
    "FolderTree",
    "Header",
    "Unreadable",
    "decode",
    "ending",
    "fit_array",
    "header",
    "open_collection",
]
