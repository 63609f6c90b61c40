"""The command predict: which pictures it reads, and what it says of them. How they are prepared is tested elsewhere."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.data import Dataset
from mnist_tuner.render.predictions import Picture
from mnist_tuner.runner import predict
from tests.support.called import SHADES, Made, called, refused

pytestmark = pytest.mark.slow

SHADED = " .:-=+*#%@"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Finished runs."""
    return Made(tmp_path_factory)


@pytest.fixture(scope="module")
def run(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on MNIST whose data is gone: so pictures are not compared with 60,000 others, which takes a second."""
    folder = tmp_path_factory.mktemp("moved") / "run"
    shutil.copytree(made.digits(), folder)
    manifest = json.loads((folder / "run.json").read_text())
    manifest["config"]["data"] = str(folder / "gone")
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def known(made: Made) -> dict[str, Any]:
    """What the run itself has made of the test images."""
    with np.load(made.digits() / "test_predictions.npz") as arrays:
        return {name: arrays[name] for name in ("labels", "predicted", "probabilities")}


@pytest.fixture(scope="module")
def pictures(mnist: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the first eight test digits as they are, under names in another order than they were written."""
    folder = tmp_path_factory.mktemp("pictures") / "digits"
    folder.mkdir()
    for index in (5, 0, 7, 1, 6, 2, 4, 3):
        Image.fromarray(mnist.test_images[index]).save(folder / f"{index}.{'png' if index % 2 else 'bmp'}")
    (folder / ".hidden").write_text("not a picture")
    (folder / "folder").mkdir()
    return folder


def document(*arguments: str | Path, code: int = 0, stdin: bytes = b"") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(called("predict", *arguments, "--json", code=code, stdin=stdin).out)
    return found


def check_reading(prediction: dict[str, Any], index: int, known: dict[str, Any]) -> None:
    """A reading is what the run itself has made of that test image."""
    probabilities = known["probabilities"][index]
    best, second = np.argsort(probabilities)[::-1][:2]
    assert prediction["label"] == best == known["predicted"][index]
    assert prediction["name"] == str(best)
    assert prediction["confidence"] == pytest.approx(probabilities[best], abs=1e-5)
    assert (prediction["second"], prediction["second_name"]) == (second, str(second))
    assert prediction["second_confidence"] == pytest.approx(probabilities[second], abs=1e-5)


def test_a_folder_is_read_in_the_order_of_its_names_as_the_test_images_were(
    made: Made, pictures: Path, known: dict[str, Any]
) -> None:
    found = document(made.digits(), pictures)
    assert list(found) == ["schema_version", "command", "model", "predictions", "problems"]
    assert (found["schema_version"], found["command"], found["problems"]) == (1, "predict", [])
    assert found["model"] == str(made.digits() / "model.keras")
    names = ["0.bmp", "1.png", "2.bmp", "3.png", "4.bmp", "5.png", "6.bmp", "7.png"]
    assert [prediction["file"] for prediction in found["predictions"]] == [str(pictures / name) for name in names]
    for index, prediction in enumerate(found["predictions"]):
        check_reading(prediction, index, known)
    assert len({prediction["label"] for prediction in found["predictions"]}) > 3


def test_files_patterns_and_folders_are_read_in_the_order_in_which_they_are_given(
    run: Path, pictures: Path, known: dict[str, Any], tmp_path: Path
) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    odd = shutil.copy(pictures / "2.bmp", deep / "[1] odd *.bmp")
    wanted = [pictures / "3.png", pictures / "1.png", pictures / "3.png", pictures / "5.png", pictures / "7.png", odd, odd]
    found = document(run, pictures / "3.png", f"{pictures}/*.png", odd, f"{tmp_path}/**/*.bmp")
    assert [prediction["file"] for prediction in found["predictions"]] == [str(path) for path in wanted]
    for prediction, index in zip(found["predictions"], (3, 1, 3, 5, 7, 2, 2), strict=True):
        check_reading(prediction, index, known)


def test_a_picture_is_read_from_the_standard_input(run: Path, pictures: Path, known: dict[str, Any]) -> None:
    found = document(run, "-", pictures / "1.png", stdin=(pictures / "4.bmp").read_bytes())
    assert [prediction["file"] for prediction in found["predictions"]] == ["-", str(pictures / "1.png")]
    check_reading(found["predictions"][0], 4, known)
    check_reading(found["predictions"][1], 1, known)
    nothing = document(run, "-", code=2)
    assert nothing["predictions"] == []
    assert "standard input: an empty file" in nothing["problems"][0]["error"]


def test_what_cannot_be_read_is_named_in_a_line_and_the_others_are_read_all_the_same(
    run: Path, pictures: Path, known: dict[str, Any], tmp_path: Path
) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes((pictures / "1.png").read_bytes()[:60])
    text = tmp_path / "text.png"
    text.write_text("[bold]not a picture[/bold]")
    none = tmp_path / "none.png"
    given = [pictures / "1.png", torn, text, none, pictures / "3.png"]
    found = document(run, *given, code=2)
    assert [prediction["file"] for prediction in found["predictions"]] == [str(given[0]), str(given[4])]
    check_reading(found["predictions"][0], 1, known)
    check_reading(found["predictions"][1], 3, known)
    assert [problem["file"] for problem in found["problems"]] == [str(torn), str(text), str(none)]
    for problem in found["problems"]:
        assert problem["error"].startswith(problem["file"])
        assert len(problem["error"].splitlines()) == 1
    done = called("predict", run, *given, code=2)
    said = (done.out + done.err).splitlines()
    for path in (torn, text, none):
        assert len([line for line in said if line.startswith((str(path), f"mnist-tuner: error: {path}"))]) == 1
    assert "2 read" in done.out
    assert "3 not readable" in done.out
    assert "Traceback" not in done.err


def test_nothing_but_the_classes_is_printed_where_it_is_quiet(
    run: Path, pictures: Path, known: dict[str, Any], tmp_path: Path
) -> None:
    """So that a script can read them; what is wrong goes elsewhere."""
    wrong = tmp_path / "wrong.png"
    wrong.write_text("wrong")
    done = called("predict", run, pictures, "--quiet")
    assert done.out.splitlines() == [str(label) for label in known["predicted"][:8]]
    done = called("predict", run, wrong, pictures / "1.png", "--quiet", code=2)
    assert done.out == f"{known['predicted'][1]}\n"
    assert str(wrong) in done.err


def test_a_table_has_a_row_for_each_picture(run: Path, pictures: Path, known: dict[str, Any], tmp_path: Path) -> None:
    odd = shutil.copy(pictures / "2.bmp", tmp_path / 'a, "b".bmp')
    done = called("predict", run, odd, pictures, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    fields = ["file", "label", "name", "confidence", "second", "second_name", "second_confidence", "doubt"]
    assert list(rows[0]) == fields
    assert rows[0]["file"] == str(odd)
    assert [int(row["label"]) for row in rows] == [known["predicted"][2], *known["predicted"][:8]]
    assert float(rows[1]["confidence"]) == pytest.approx(known["probabilities"][0].max(), abs=1e-5)
    assert rows[1]["doubt"] == ""
    assert str(pictures / "0.bmp") in done.err  # the report goes there
    assert "--csv and --json" in refused("predict", run, odd, "--csv", "--json")


def test_doubt_is_said(made: Made, pictures: Path, mnist: Dataset, tmp_path: Path) -> None:
    empty, two, scene = tmp_path / "empty.png", tmp_path / "two.png", tmp_path / "scene.png"
    Image.new("L", (200, 100), 255).save(empty)
    Image.fromarray(np.hstack([mnist.test_images[0], mnist.test_images[1]])).save(two)
    blocks = np.random.default_rng(3).integers(0, 2, (8, 8)) * 255
    Image.fromarray(np.pad(blocks, 2).repeat(12, 0).repeat(12, 1).astype(np.uint8)).save(scene)
    found = {
        Path(p["file"]).name: p["doubt"] for p in document(made.digits(), empty, two, scene, pictures / "1.png")["predictions"]
    }
    assert found["empty.png"] == "empty: no ink found"
    assert found["two.png"]
    assert found["scene.png"]
    assert found["1.png"] is None
    done = called("predict", made.digits(), empty, pictures / "1.png")
    assert "nothing to read: the picture is empty" in " ".join(done.out.split())
    assert "2 read, 1 of them doubtful" in done.out
    (row,) = csv.DictReader(io.StringIO(called("predict", made.digits(), empty, "--csv").out))
    assert row["doubt"] == "empty: no ink found"


def test_a_reading_that_is_a_close_call_is_doubtful(mnist: Dataset, tmp_path: Path) -> None:
    """A net that has learned nothing gives every class about a tenth."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Flatten(), keras.layers.Dense(10, kernel_initializer="zeros", activation="softmax")]
    keras.Sequential([keras.Input((28, 28)), *layers]).save(tmp_path / "ignorant.keras")
    Image.fromarray(mnist.test_images[0]).save(tmp_path / "seven.png")
    (prediction,) = document(tmp_path / "ignorant.keras", tmp_path / "seven.png")["predictions"]
    assert prediction["confidence"] == pytest.approx(0.1)
    assert prediction["second"] != prediction["label"]
    assert prediction["doubt"] == "the net is not sure"


def rows_of(text: str) -> list[str]:
    """The lines of a picture: 28 columns at the beginning of a line."""
    return [line[:28].ljust(28) for line in text.splitlines()[:14]]


def test_what_the_net_saw_is_drawn_beside_what_it_read(run: Path, pictures: Path, mnist: Dataset) -> None:
    image = mnist.test_images[1].astype(int)
    levels = (image[::2] + image[1::2]) * 9 // 510
    plain = called("predict", run, pictures / "1.png", COLUMNS="160").out
    assert rows_of(plain) == ["".join(SHADED[level] for level in row) for row in levels]
    assert str(pictures / "1.png") in plain
    coloured = called("predict", run, pictures / "1.png", COLUMNS="160", FORCE_COLOR="1", COLORTERM="truecolor").out
    row, column = divmod(int(np.argmax(image)), 28)
    above, below = image[row // 2 * 2, column], image[row // 2 * 2 + 1, column]
    cells = re.findall(r"\x1b\[38;2;(\d+);\d+;\d+;48;2;(\d+);\d+;\d+m(\N{UPPER HALF BLOCK}+)", coloured)
    drawn = [(int(a), int(b)) for a, b, blocks in cells for _ in blocks]
    assert len(drawn) == 14 * 28
    assert drawn[row // 2 * 28 + column] == (above, below)
    assert drawn == [(a, b) for pair in zip(image[::2], image[1::2], strict=True) for a, b in zip(*pair, strict=True)]


def test_the_confidence_and_the_runner_up_are_said(run: Path, pictures: Path, known: dict[str, Any]) -> None:
    probabilities = known["probabilities"][1]
    best, second = np.argsort(probabilities)[::-1][:2]
    said = " ".join(called("predict", run, pictures / "1.png", COLUMNS="160").out.split())
    assert re.search(rf"\b{best} {re.escape(f'{probabilities[best]:.2%}')}", said)
    assert re.search(rf"runner-up {second} {re.escape(f'{probabilities[second]:.2%}')}", said)


def test_of_many_pictures_each_has_a_line(run: Path, pictures: Path, known: dict[str, Any]) -> None:
    lines = called("predict", run, pictures, pictures, COLUMNS="200").out.splitlines()
    assert len(lines) == 17
    for index, line in enumerate(lines[:8]):
        assert line.startswith(str(next(pictures.glob(f"{index}.*"))))
        assert f"  {known['predicted'][index]}  " in line
    assert lines[-1].startswith("16 read")


def test_pictures_of_other_data_are_read_with_its_names(made: Made, tmp_path: Path) -> None:
    """7 x 5 pixels without a margin, and names that rich would take for markup."""
    with np.load(made.shades() / "data.npz") as arrays:
        images = arrays["x_test"][:12]
    with np.load(made.named() / "test_predictions.npz") as arrays:
        predicted, probabilities = arrays["predicted"][:12], arrays["probabilities"][:12]
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index:02}.png")
    found = document(made.named(), tmp_path)["predictions"]
    assert [prediction["name"] for prediction in found] == [SHADES[label] for label in predicted]
    for prediction, row in zip(found, probabilities, strict=True):
        assert prediction["confidence"] == pytest.approx(row.max(), abs=1e-5)
    printed = called("predict", made.named(), tmp_path, COLUMNS="160").out
    assert all(SHADES[label] in printed for label in predicted)
    assert len({*predicted.tolist()}) == 3
    quiet = called("predict", made.named(), tmp_path, "--quiet").out
    assert [line.partition("  ")[0] for line in quiet.splitlines()] == [SHADES[label] for label in predicted]


def test_a_model_that_nothing_is_known_of_reads_digits(made: Made, pictures: Path, known: dict[str, Any], tmp_path: Path) -> None:
    alone = shutil.copy(made.digits() / "model.keras", tmp_path / "alone.keras")
    check_reading(document(alone, pictures / "5.png")["predictions"][0], 5, known)


def test_pictures_that_are_nowhere_are_refused(run: Path, tmp_path: Path) -> None:
    for nothing in (tmp_path, tmp_path / "*.png"):
        assert f"{nothing}: there are no pictures" in called("predict", run, nothing, code=2, COLUMNS="300").out
    assert "IMAGE" in refused("predict", run)
    with pytest.raises(InputError, match="no such file or folder"):
        predict(tmp_path / "none", ["-"])


def test_a_model_of_other_images_is_refused(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("L", (28, 28)).save(picture)
    keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]).save(tmp_path / "colour.keras")
    assert "(32, 32, 3)" in refused("predict", tmp_path / "colour.keras", picture)


def test_from_python_it_gives_the_readings(run: Path, pictures: Path, known: dict[str, Any]) -> None:
    screen = Console(file=io.StringIO(), width=100)
    found = predict(run, [str(pictures / "1.png")], screen)
    (prediction,) = found.predictions
    assert prediction.label == known["predicted"][1]
    assert found.problems == ()


@pytest.mark.parametrize("shape", [(7, 5), (28, 28), (100, 30), (1, 1), (3, 200)])
def test_a_picture_of_any_shape_is_drawn_within_28_columns(shape: tuple[int, int]) -> None:
    screen = Console(file=io.StringIO(), width=100)
    screen.print(Picture(np.full(shape, 255, np.uint8)))
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert 1 <= len(lines) <= 15
    assert {len(line) for line in lines} == {-(-shape[1] // -(-max(shape) // 28))}
    assert "@" in lines[0] or shape[0] in (1, 3)  # a row is half of a character


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Models of which not all outputs are numbers: of no image, and of no image that is not black."""
    paths = []
    for name, weight in (("nan", np.nan), ("huge", 3e38)):
        model = keras.Sequential(
            [keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(8, "relu"), keras.layers.Dense(10)]
        )
        model.set_weights([np.full(value.shape, weight if value.ndim > 1 else 0.0) for value in model.get_weights()])
        paths.append(tmp_path_factory.mktemp(name) / "model.keras")
        model.save(paths[-1])
    return paths


def test_what_is_not_finite_is_no_answer(diverged: list[Path], pictures: Path, tmp_path: Path) -> None:
    for path in diverged:
        said = refused("predict", path, pictures)
        assert f"{path}: for 8 of 8 images the net makes no finite number" in said
        assert "for 10,000 of 10,000 images the net makes no finite number" in refused("evaluate", path)
    assert "no finite number" in refused("export", diverged[0], "--output", tmp_path / "new.keras")
    assert list(tmp_path.iterdir()) == []
