"""The arms of a stage in words, before they run."""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_seg.ablation.protocol import Arm
from keras_seg.config import plain, settings


def json_lines(arms: Sequence[Arm]) -> Iterator[str]:
    """Every setting of each arm, nested, as a line of JSON."""
    for arm in arms:
        yield f"  {arm.name}: {json.dumps(arm.settings())}"


def lines(arms: Sequence[Arm]) -> Iterator[str]:
    """What all arms have in common but for defaults, then what is each arm's own."""
    found = [dict(flat(arm.settings())) for arm in arms]
    own = {path for values in found for path in values if not _is_shared(path, found)}
    defaults = {path: default for path, _, default, *_ in settings()}
    shared = {
        path: value
        for path, value in found[0].items()
        if path not in own and value != plain(defaults.get(path))
    }
    yield from _settings_lines("all arms", shared)
    for arm, values in zip(arms, found):
        own_values = {path: value for path, value in values.items() if path in own}
        yield from _settings_lines(arm.name, own_values, arm.pretrained)
    yield "  Other settings have their defaults (docs/reference/settings.md)."


def _is_shared(path: str, found: Sequence[Mapping[str, Any]]) -> bool:
    return all(path in values and values[path] == found[0][path] for values in found)


def _settings_lines(
    title: str, values: Mapping[str, Any], weights: str = ""
) -> list[str]:
    words = [f"{path}={_as_option(value)}" for path, value in values.items()]
    words += [f"starts from {weights}"] if weights else []
    return textwrap.wrap(
        f"{title}: {' '.join(words) or 'nothing of its own'}",
        width=79,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _as_option(value: Any) -> str:
    """A value as --set takes it."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace(", ", ",")


def flat(values: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of nested mappings."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
