"""What a report is made from: the context of a study, and a stage seen in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from keras_seg.ablation.protocol import Arm, StageResult
from keras_seg.data.prepared import Prepared
from keras_seg.plots import MOST_LABELS, Colour, arm_colours, picture_palette
from keras_seg.report import scores
from keras_seg.report.evidence import Evidence
from keras_seg.report.sheets import Example
from keras_seg.storage import StorageError

Found = TypeVar("Found")


@dataclass(frozen=True)
class Context:
    """What a report needs beyond the results."""

    command: str  # repeats the study
    scale: str  # one of protocol.SCALES
    dataset: str
    names: Sequence[str]  # of the dataset's classes
    palette: Sequence[Colour]
    train_pixels: Sequence[int]  # [C], in the training split
    environment: Mapping[str, object]  # versions, CPU, threads, commit
    flip_pairs: Sequence[tuple[int, int]] = ()  # classes that are left and right
    # On which the study's published numbers may stand beside ours; a stage may name
    # its own.
    datasets: Sequence[str] = ()
    # {stage: why they cannot stand there all the same; ""}
    altered: Mapping[str, str] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None  # of the data; None where they differ
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)  # of class ids
    # {`wording.weighting` of an arm: weights [C]}
    weights: Mapping[str, Sequence[float]] = field(default_factory=dict)
    # {split: {image id: sequence}}, from `Prepared.sequences`
    sequences: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    examples: Sequence[Example] = ()  # for the sheets of a stage
    prepared: Prepared | None = None  # the data, for pictures of their images
    is_own: bool = False  # a question of the user's, of which no document speaks
    # {stage: (what a command is for, the command)} of its answer's next steps
    next_steps: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)  # number of each split


@dataclass(frozen=True)
class Panel:
    """Arms of a stage that belong in one picture (`Stage.panels`).

    Panels that declare their arms in the same order draw them in the same styles.
    """

    name: str  # ends the names of its files: "panel1", or "" for that of all arms
    title: str  # as declared, or ""
    labels: Mapping[str, str]  # {name of an arm: what it is called here}
    drawn: Mapping[str, str]  # those of `labels` to draw: all, or the best of many
    styles: Mapping[str, tuple]  # {label: (colour, dash)}; of those, all different


class StageView:
    """A stage's result with what several parts of its report need."""

    def __init__(
        self,
        result: StageResult,
        context: Context,
        others: Mapping[str, StageResult] | None = None,
    ):
        """`others` is {name: stage} of all that were run, which claims may name."""
        self.result, self.stage, self.context = result, result.stage, context
        self.arms = result.arms
        self.base = result.arms[0]  # the others are compared with it
        self.titles = {arm.name: arm.title for arm in self.arms}
        self.finished = [arm for arm in self.arms if scores.done(result, arm.name)]
        self.floors = scores.floors(result, context.names, context.train_pixels)
        self.palette = picture_palette(context.palette, context.names)
        # May the document's numbers stand beside ours?
        comparable = context.dataset in (self.stage.datasets or context.datasets)
        self.altered = context.altered.get(self.stage.name, "")
        self.shows_published = (
            context.scale == "paper" and comparable and not self.altered
        )
        self.others = {**(others or {}), result.stage.name: result}
        self.evidence = Evidence(result, context.sequences, context.names, self.others)
        self._unread: dict[str, None] = {}  # sentences, each once

    def read(self, what: str, read: Callable[[], Found | None]) -> Found | None:
        """What a file holds; None where it is damaged, and then `left_out` says so."""
        try:
            return read()
        except StorageError as error:
            self._unread[f"No {what}: {error}"] = None
            return None

    @property
    def left_out(self) -> list[str]:
        """What the parts made so far lack because a file is damaged, in sentences."""
        damaged = dict.fromkeys(f"No interval: {e}" for e in self.evidence.damaged)
        return [*damaged, *self._unread]

    def anchor(self) -> str:
        """Where links to the stage lead."""
        return f"stage-{self.stage.name}"

    def panels(self) -> list[Panel]:
        """The stage's panels that have an arm; one of all arms if it declares none."""
        declared = self.stage.panels.items()
        panels = [
            self._panel(f"panel{number}", title, labels)
            for number, (title, labels) in enumerate(declared, 1)
            # An arm may be left out, as one whose pretrained weights are not there.
            if labels.keys() & self.titles.keys()
        ]
        return panels if declared else [self.whole()]

    def whole(self) -> Panel:
        """The panel of all arms."""
        return self._panel("", "", self.titles)

    def _panel(self, name: str, title: str, declared: Mapping[str, str]) -> Panel:
        arms = {arm.name: arm for arm in self.arms if arm.name in declared}
        labels = {name: text for name, text in declared.items() if name in arms}
        shown = self._first_and_best([arms[name] for name in labels])
        drawn = {arm.name: labels[arm.name] for arm in shown}
        given = {labels[arm.name]: arm.colour for arm in arms.values() if arm.colour}
        # Of many, those to be drawn come first and get colours that differ.
        fits = len(declared) <= MOST_LABELS
        styled = list((declared if fits else {**drawn, **declared}).values())
        styles = arm_colours(styled, styled[0], given)
        return Panel(name, title, labels, drawn, styles)

    def _first_and_best(self, arms: Sequence[Arm]) -> list[Arm]:
        """The arms to draw: all, or where they are many the first and the best ones."""
        if len(arms) <= MOST_LABELS:
            return list(arms)
        ranked = sorted(
            (arm for arm in arms[1:] if arm in self.finished),
            key=lambda arm: -scores.mean_score(self.result, arm.name, "miou"),
        )
        kept = {arms[0].name, *(arm.name for arm in ranked[: MOST_LABELS - 1])}
        return [arm for arm in arms if arm.name in kept]
