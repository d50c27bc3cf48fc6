"""Recipes: files of settings with a reason and a source each (keras_seg/recipes).

A recipe is TOML: a table per setting, named by its path, with `value`, `reason` and
`source`. Adding one is adding a file; `--recipe` and docs/how-to/recipes.md follow.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_seg import config
from keras_seg.errors import UsageError

FOLDER = Path(__file__).parents[1] / "recipes"
FIELDS = {"value", "reason", "source"}


def names() -> list[str]:
    """The names of the recipes of this package."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def read(name: str | Path) -> dict[str, dict[str, Any]]:
    """{path of a setting: its value, reason and source} of a recipe.

    Args:
        name: of `names`, or a TOML file.

    Raises:
        UsageError: there is none, or it is no recipe; the line is named.
    """
    file = FOLDER / f"{name}.toml" if str(name) in names() else Path(name)
    if not file.is_file():
        known = ", ".join(names())
        raise UsageError(
            f"There is no recipe {str(name)!r}. Recipes: {known}; or name a TOML file."
        )
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"The recipe {file} cannot be read: {error}.") from None
    content.pop("title", None)
    for path, line in content.items():
        is_told = isinstance(line, Mapping) and line.keys() == FIELDS
        texts = [line["reason"], line["source"]] if is_told else [""]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise UsageError(
                f"{path} of the recipe {file} must have a value, a reason and a "
                'source: ["optimizer.lr"], then value = 0.01 and so on.'
            )
        config.set_path({}, path, line["value"])
    return content


def apply(values: dict[str, Any], name: str | Path | None) -> None:
    """Override nested settings by those of a recipe; None changes nothing."""
    if name is not None:
        for path, line in read(name).items():
            config.set_path(values, path, line["value"])
