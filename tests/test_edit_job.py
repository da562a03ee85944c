"""The job --mode=edit: one picture, a folder, bad files, resumption, and wrong settings."""

import json

import numpy as np
import pytest
from PIL import Image

import score_sde as ss
from score_sde import config as config_
from score_sde.core.errors import InputError
from score_sde.editing import Editor
from score_sde.experiment import Experiment
from score_sde.jobs import edit_pictures, train
from score_sde.jobs.edit import EditPictures, pictures_of
from tests import small_job


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edit") / "run"
    config = small_job.get_config()
    config.train.update(steps=2, eval_every=0, sample_every=0, log_every=0, checkpoint_every=2)
    train(config, folder)
    return folder


def config(**entries):
    made = small_job.get_config()
    made.edit.update(dict(grid="default(n=3)", n=2, batch_size=40) | entries)
    return config_.complete(made)


def result(workdir, name):
    (folder,) = (workdir / "edits").glob(f"{name}-*")
    return folder


def write_pictures(folder, n, size=(8, 8)):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(n):
        Image.fromarray(rng.integers(0, 256, size).astype(np.uint8)).save(folder / f"{number:03d}.png")


def test_a_folder_of_100_with_one_bad_file(workdir, tmp_path, capsys):
    write_pictures(tmp_path / "in", 99)
    (tmp_path / "in" / "050a.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    settings = config(input=str(tmp_path / "in"), what="Inpaint(mask=(2, 2, 6, 6), method='Replacement')")
    edit_pictures(settings, workdir)
    told = capsys.readouterr()
    folder = result(workdir, "inpaint")
    assert "inpaint: 99 of 100 pictures, 2 answers each" in told.out
    assert told.err.count("warning: not edited") == 1 and "050a.png" in told.err
    assert len(list(folder.glob("*/comparison.png"))) == 99 and len(list(folder.glob("*/*.png"))) == 3 * 99
    before = np.asarray(Image.open(tmp_path / "in" / "007.png"))
    known = np.ones((8, 8), bool)
    known[2:6, 2:6] = False
    for name in ("1.png", "2.png"):
        after = np.asarray(Image.open(folder / "007.png" / name))
        np.testing.assert_array_equal(after[known], before[known])
        assert (after[~known] != before[~known]).any()
    about = json.loads((folder / "007.png" / "about.json").read_text())
    assert about["edit"]["mask"] == [2, 2, 6, 6] and about["answers"] == 2 and about["steps"] == 3
    assert about["spread"] > 0 and about["masked"] == 0.25
    whole = json.loads((folder / "edit.json").read_text())
    assert whole["checkpoint_step"] == 2 and whole["edit"]["name"] == "Inpaint" and whole["n"] == 2
    # Again: nothing is drawn, and a new picture is the only one that is edited.
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file()}
    Image.fromarray(before).save(tmp_path / "in" / "new.png")
    edit_pictures(settings, workdir)
    assert "100 of 101 pictures, 99 of them before" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    # Equal pictures have equal answers, whatever is beside them.
    np.testing.assert_array_equal(
        np.asarray(Image.open(folder / "new.png" / "1.png")), np.asarray(Image.open(folder / "007.png" / "1.png"))
    )


def test_pictures_of_other_kinds(workdir, tmp_path, capsys):
    """Alpha is kept, EXIF is applied, other sizes come back in their size; a changed file does not replace results."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    rng = np.random.default_rng(1)
    colour = rng.integers(0, 256, (20, 30, 4)).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "in" / "sub" / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(colour[..., :3]).save(tmp_path / "in" / "a.jpg", exif=exif)
    Image.fromarray(colour[..., 0]).save(tmp_path / "in" / "a.png")
    what = "ImageToImage(strength=0.5)"
    edit_pictures(config(input=str(tmp_path / "in"), what=what), workdir)
    folder = result(workdir, "imagetoimage")
    alpha = np.asarray(Image.open(folder / "sub" / "alpha.png" / "1.png"))
    np.testing.assert_array_equal(alpha[..., 3], colour[..., 3])
    np.testing.assert_array_equal(alpha[:, :5, :3], colour[:, :5, :3])  # beside the centre
    assert (alpha[:, 5:25, :3] != colour[:, 5:25, :3]).any()
    turned, grey = folder / "a.jpg" / "1.png", folder / "a.png" / "1.png"
    assert Image.open(turned).size == (20, 30) and Image.open(grey).size == (30, 20)
    assert not Image.open(turned).getexif()
    first = grey.read_bytes()
    Image.fromarray(255 - colour[..., 0]).save(tmp_path / "in" / "a.png")
    edit_pictures(config(input=str(tmp_path / "in"), what=what), workdir)
    assert grey.read_bytes() == first
    assert len(list(folder.glob("a.png-*/about.json"))) == 1
    capsys.readouterr()
    edit_pictures(config(input=str(tmp_path / "in"), what=what), workdir)
    assert "3 of 3 pictures, 3 of them before" in capsys.readouterr().out


def test_names_of_pictures_do_not_collide(workdir, tmp_path):
    """Strength 0 returns each picture, whatever the others are called, and the settings stay."""
    (tmp_path / "in").mkdir()
    names = ["photo.png", "photo-2.png", "photo-comparison.png", "edit.png", "a.png", "a.jpg.png", "1.png"]
    for number, name in enumerate(names):
        Image.fromarray(np.full((3, 1 + number), 30 * number, np.uint8)).save(tmp_path / "in" / name)
    Image.fromarray(np.full((8, 8), 250, np.uint8)).save(tmp_path / "in" / "a.jpg", quality=95)
    edit_pictures(config(input=str(tmp_path / "in"), what="ImageToImage(strength=0)"), workdir)
    (folder,) = (
        path.parent
        for path in (workdir / "edits").glob("imagetoimage-*/edit.json")
        if json.loads(path.read_text())["edit"]["strength"] == 0
    )
    for number, name in enumerate(names):
        for answer in ("1.png", "2.png"):
            found = np.asarray(Image.open(folder / name / answer))
            assert found.shape == (3, 1 + number) and (found == 30 * number).all()
    assert abs(np.asarray(Image.open(folder / "a.jpg" / "1.png")).mean() - 250) < 3
    assert len(list(folder.iterdir())) == 9


def test_a_sample_that_is_not_finite_fails_alone(workdir, tmp_path, capsys, monkeypatch):
    write_pictures(tmp_path / "in", 3)
    drawn = Editor.edited

    def diverging(self, edit, pictures, *args):
        if any(picture.name.endswith("001.png") for picture in pictures):
            raise ss.DivergenceError("1 of 2 samples are not finite")
        return drawn(self, edit, pictures, *args)

    monkeypatch.setattr(Editor, "edited", diverging)
    edit_pictures(config(input=str(tmp_path / "in"), what="Sharpen(method='Replacement')", seed=77), workdir)
    told = capsys.readouterr()
    assert "2 of 3 pictures" in told.out
    assert told.err.count("warning") == 1 and "001.png: 1 of 2 samples" in told.err


def test_other_settings_go_to_another_folder(workdir, tmp_path):
    write_pictures(tmp_path / "in", 1)
    path = str(tmp_path / "in" / "000.png")
    entries = [dict(), dict(seed=1), dict(cond="label=3"), dict(n=1), dict(guidance="ClassifierFree(weight=2)")]
    for more in entries:
        edit_pictures(config(input=path, what="Sharpen(method='Replacement'), ImageToImage()", **more), workdir)
    for name in ("sharpen", "imagetoimage"):
        folders = sorted((workdir / "edits").glob(f"{name}-*"))
        folders = [path for path in folders if (path / "000.png").exists()]
        assert len(folders) >= len(entries)
        pictures = {(folder / "000.png" / "1.png").read_bytes() for folder in folders}
        assert len(pictures) >= 3


def test_the_command_line_reads_its_entries(workdir, tmp_path):
    """The entries of the section have the same meaning in Python: model.edit has the answers of the job."""
    write_pictures(tmp_path / "in", 1)
    what = "Inpaint(mask=(0, 0, 4, 8), method='Replacement')"
    edit_pictures(config(input=str(tmp_path / "in" / "000.png"), what=what, seed=5, cond="label=2"), workdir)
    model = ss.load(workdir)
    one = model.edit(
        tmp_path / "in" / "000.png", what, n=2, seed=5, label=2, grid=ss.time_grid.default(model.denoiser.sde, 3)
    )
    found = [
        path / f"{number}.png"
        for number in (1, 2)
        for path in (workdir / "edits").glob("inpaint-*/000.png")
        if json.loads((path.parent / "edit.json").read_text())["seed"] == 5
    ]
    for answer, path in zip(one.answers, found, strict=True):
        assert np.abs(np.asarray(Image.open(path)).astype(int) - answer[..., 0]).max() <= 1


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (dict(what="", input="x"), "edit.what is ''; expected one or several of ChangeClass, Colourise"),
        (dict(what="Paint()", input="x"), "editing has no 'Paint'"),
        (dict(what="Inpaint()", input="x"), "Inpaint: missing a required argument: 'mask'"),
        (dict(what="Sharpen()", input=""), "edit.input is missing"),
        (dict(what="Sharpen()", input="nowhere"), "edit.input is 'nowhere', which does not exist"),
        (dict(what="Sharpen()", input="x", n=0), "edit.n is 0"),
        (dict(what="ImageToImage(strength=2)", input="x"), "strength of ImageToImage is 2"),
        (dict(what="Colourise()", input="x"), "Colourise needs a model of colour images"),
        (dict(what="Sharpen(factor=3)", input="x"), "factor of Sharpen is 3"),
        (dict(what="Inpaint(mask='none.png')", input="x"), "mask of Inpaint is 'none.png', which does not exist"),
        (dict(what="Sharpen()", input="docs", sampler="Nothing"), "has no 'Nothing'"),
        (dict(what="Sharpen()", input="docs", grid="log_snr(m=3)"), "no argument m"),
        (dict(what="Sharpen()", input="x", seed=-1), "edit.seed is -1"),
    ],
)
def test_wrong_entries_are_one_line_before_anything_is_drawn(entries, message):
    experiment = Experiment.from_config(config(**entries))
    with pytest.raises(InputError, match=message) as caught:
        EditPictures().check(experiment)
    assert "\n" not in str(caught.value)


def test_what_only_the_picture_shows_is_one_line(workdir, tmp_path):
    write_pictures(tmp_path / "in", 2)
    given = dict(input=str(tmp_path / "in"))
    with pytest.raises(InputError, match=r"No picture can be edited; the first one: .* inside the picture"):
        edit_pictures(config(what="Inpaint(mask=(0, 0, 20, 20))", **given), workdir)
    alone = dict(input=str(tmp_path / "in" / "001.png"))
    with pytest.raises(InputError, match=r"^mask of Inpaint is .0, 0, 20, 20. for .*001.png of 8 x 8 pixels; expected"):
        edit_pictures(config(what="Inpaint(mask=(0, 0, 20, 20))", **alone), workdir)
    assert not [path for path in (workdir / "edits").glob("*") if not (path / "edit.json").exists()]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty' has no pictures; expected files that end in"):
        pictures_of(str(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"edit.cond, label: a label is 77; expected a whole number from 0 to 9"):
        edit_pictures(config(what="ChangeClass(label=77)", **given), workdir)
    with pytest.raises(InputError, match=r"ChangeClass states label = 7, and so do the conditions, 2; expected one"):
        edit_pictures(config(what="ChangeClass(label=7)", cond="label=2", **given), workdir)
    with pytest.raises(InputError, match=r"sampler of an edit is Replacement, which reads mask, y itself; .* method="):
        edit_pictures(config(what="Sharpen()", sampler="Replacement", **given), workdir)
    with pytest.raises(InputError, match=r"guidance has ClassifierGuided\(weight\); expected workdir"):
        edit_pictures(config(what="Sharpen()", guidance="ClassifierGuided(weight=2)", **given), workdir)


def test_masks_of_a_folder(workdir, tmp_path):
    """A picture has the mask of its name and sub-folder; a mask that changes makes another result."""
    for name, white in (("a/0.png", 3), ("b/0.png", 5), ("b/1.png", None), ("2.png", 4)):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 99, np.uint8)).save(tmp_path / "in" / name)
        if white is not None:
            mask = np.zeros((8, 8 if name != "2.png" else 4), np.uint8)
            mask[:, :white] = 255
            Image.fromarray(mask).save(tmp_path / "masks" / name)
    (tmp_path / "masks" / "a" / "0.json").write_text("{}")
    what = f"Inpaint(mask={str(tmp_path / 'masks')!r}, method='Replacement')"
    settings = config(input=str(tmp_path / "in"), what=what, seed=9)
    edit_pictures(settings, workdir)
    (folder,) = (path.parent for path in (workdir / "edits").glob("*/edit.json") if "masks" in path.read_text())
    assert sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("about.json")) == ["a/0.png", "b/0.png"]
    for name, white in (("a", 3), ("b", 5)):
        after = np.asarray(Image.open(folder / name / "0.png" / "1.png"))
        assert (after[:, white:] == 99).all() and (after[:, :white] != 99).any()
    (tmp_path / "masks" / "b" / "0.png").write_bytes((tmp_path / "masks" / "a" / "0.png").read_bytes())
    edit_pictures(settings, workdir)
    (again,) = folder.glob("b/0.png-*")
    assert (np.asarray(Image.open(again / "1.png"))[:, 3:] == 99).all()
