"""This package reads examples from pictures in folders and archives, arrays, and files of known data sets."""

from score_sde.readers.pictures.collection import Collection, Columns
from score_sde.readers.pictures.image import Fit, Header, decode, fit_array, header
from score_sde.readers.pictures.layout import ENDINGS, ending
from score_sde.readers.pictures.pixels import Unreadable
from score_sde.readers.pictures.recognise import open_collection
from score_sde.readers.pictures.tree import FolderTree
from score_sde.readers.pictures.workers import ReadMany, reading

__all__ = [
    "ENDINGS",
    "Collection",
    "Columns",
    "Fit",
    "FolderTree",
    "Header",
    "ReadMany",
    "Unreadable",
    "decode",
    "ending",
    "fit_array",
    "header",
    "open_collection",
    "reading",
]
