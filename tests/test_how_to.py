"""The how-to pages are true: their commands and their Python run, on generated data."""

import re
import shlex
import sys
from pathlib import Path

import miniatures
import pytest

from keras_seg import command_line, study
from keras_seg.runs import commands

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "how-to"
SHORT = {"--steps": "2", "--epochs": "1", "--budget": "60m", "--seeds": "1"}
SHORT |= {"--folds": "2"}
SMALL = {"192 256": "32 64", "96, 128": "32, 64", "steps=200": "steps=2"}
SMALL |= {"[96,128],[192,256]": "[32,64],[64,64]", "steps=500": "steps=2"}
SMALL |= {"epochs=2": "epochs=1", "seeds=3": "seeds=1"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with prepared data, a run, and no window for pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    for name in ("mine", "camvid"):
        miniatures.shapes(tmp_path / "datasets" / "prepared" / name)
    return tmp_path


def small(text: str) -> str:
    for old, new in SMALL.items():
        text = text.replace(old, new)
    return text


def command_lines(page: str) -> list[list[str]]:
    """The words of the page's commands that begin with python, made short."""
    text = small((PAGES / page).read_text().replace("\\\n", " "))
    found = []
    for line in re.findall(r"^    python (.*)$", text, re.MULTILINE):
        words = shlex.split(line, comments=True)
        for option, value in SHORT.items():
            if option in words:
                words[words.index(option) + 1] = value
        found.append(words)
    return found


def run_command(words: list[str]) -> None:
    if words[0] == "ablations/run.py":
        more = [] if "--plan" in words or "--list" in words else ["--scale", "smoke"]
        main = study.main
    else:
        main, more = getattr(commands, Path(words[0]).stem), []
    assert command_line.run(main, [*words[1:], *more]) == 0, words


def python_blocks(page: str, without: str = "<!-- needs") -> list[str]:
    text = (PAGES / page).read_text()
    found = re.findall(r"((?:<!-- .*? -->\n)?)```python\n(.*?)```", text, re.DOTALL)
    return [small(code) for note, code in found if not note.startswith(without)]


@pytest.mark.slow
def test_the_commands_of_own_question(place, capsys):
    asked = [
        words
        for words in command_lines("own-question.md")
        if "streets" not in words and "my/streets.py" not in words
    ]
    assert len(asked) >= 6
    first = "tools/train.py --net icnet --data datasets/prepared/mine --size 32 64"
    run_command([*first.split(), "--steps", "2", "--out", "runs/first"])
    for words in asked:
        run_command(words)
    said = capsys.readouterr()
    assert "# predict photographs" in said.out
    assert "layers that start at random: none" in said.err


@pytest.mark.slow
@pytest.mark.parametrize("page", ["own-question.md", "notebook.md"])
def test_the_python_of_a_page(page, place):
    from PIL import Image

    Image.new("RGB", (60, 40)).save("street.jpg")
    names: dict = {}
    for code in python_blocks(page):
        exec(compile(code, page, "exec"), names)
    if page == "own-question.md":
        assert names["answer"].report.is_file()
        assert (names["answer"].winner / "metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("library", ["mlflow", "wandb"])
def test_the_callbacks_of_other_libraries(library, place, monkeypatch):
    pytest.importorskip(library)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    monkeypatch.setattr(sys, "argv", ["notebook"])
    import keras_seg

    text = (PAGES / "notebook.md").read_text()
    (code,) = re.findall(rf"<!-- needs {library} -->\n```python\n(.*?)```", text, re.S)
    data = keras_seg.open_data("datasets/prepared/camvid")
    exec(
        compile(small(code), "notebook.md", "exec"),
        {"keras_seg": keras_seg, "data": data},
    )
    assert (place / "runs" / "logged" / "metrics.json").is_file()
