"""This package edits pictures with a model: `Edit` says what is kept, `Editor` draws the rest, `Edited` is the answer.

An edit makes a `Plan` of a picture: a canvas at the model's scale, windows of the model's size in order, and a `Paste`
that puts an answer back into the picture.
"""

from score_sde.editing.base import Edit, Measured, of_centre
from score_sde.editing.changing import ChangeClass, ImageToImage
from score_sde.editing.edited import Edited
from score_sde.editing.editor import Editor
from score_sde.editing.painting import Inpaint, Outpaint
from score_sde.editing.pictures import Picture, as_pictures, read_picture
from score_sde.editing.plan import Paste, Plan
from score_sde.editing.restoring import Colourise, Deblur, Sharpen, SuperResolve
from score_sde.editing.strength import kept, kept_steps

__all__ = [
    "ChangeClass",
    "Colourise",
    "Deblur",
    "Edit",
    "Edited",
    "Editor",
    "ImageToImage",
    "Inpaint",
    "Measured",
    "Outpaint",
    "Paste",
    "Picture",
    "Plan",
    "Sharpen",
    "SuperResolve",
    "as_pictures",
    "kept",
    "kept_steps",
    "of_centre",
    "read_picture",
]
