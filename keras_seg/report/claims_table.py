"""The claims of a stage: found in its runs and those of other stages, as a table."""

import math
from collections.abc import Mapping, Sequence

from keras_seg.ablation.protocol import ArmResult, Claim, Side
from keras_seg.report import claims, scores, wording
from keras_seg.report.blocks import Cell, Row, Table
from keras_seg.report.claims import Finding
from keras_seg.report.families import adjust
from keras_seg.report.tables import (
    CLASS_SCORES,
    LEVEL,
    LOSS_FALL,
    Column,
    between,
    columns,
    safe,
)
from keras_seg.report.view import StageView
from keras_seg.report.wording import percent, points

SIDES = {  # of a factor, before it
    "higher": "more than ",
    "lower": "less than ",
    "not higher": "at most ",
    "not lower": "at least ",
    "same": "",
}


def findings(view: StageView) -> list[Finding]:
    """Every claim of the stage with its verdict, the document's before ours."""
    found = []
    for ours in (False, True):  # a family of comparisons each
        listed = [claim for claim in view.stage.claims if claim.ours == ours]
        asked = [(claim, column(view, claim.metric)) for claim in listed]
        compared = [view.evidence.of_claim(claim, one.value) for claim, one in asked]
        known = [each for each in compared if each is not None]
        adjusted = iter(adjust(known) if known else ())
        for (claim, one), comparison in zip(asked, compared):
            first, second = (
                [one.value(run) for run in runs] for runs in _runs(view, claim)
            )
            interval = None if comparison is None else next(adjusted)
            so_far = view.context.scale != "paper" and any(
                scores.still_improving(runs) is not False for runs in _runs(view, claim)
            )
            found.append(
                claims.judge(claim, first, second, interval, one.is_share, so_far)
            )
    return found


def column(view: StageView, metric: str) -> Column:
    """The number that a claim is about."""
    for one in (*columns(view), LOSS_FALL):
        if one.name == metric:
            return one
    kind, _, name = metric.partition(" ")
    names = list(view.context.names)

    def value(run: ArmResult) -> float:
        if kind not in CLASS_SCORES or name not in names:
            return math.nan
        found = scores.metrics(run)["per_class"][kind][names.index(name)]
        return math.nan if found is None else found

    title = f"{CLASS_SCORES.get(kind, kind)} of {name} %"
    return Column(metric, title, value, percent, max, is_share=True)


def claims_table(view: StageView, found: Sequence[Finding]) -> Table:
    """Each claim of one kind, what was found, whether it holds."""
    rows = []
    for one in found:
        claim, what = one.claim, column(view, one.claim.metric)
        metric = what.title.removesuffix(" %").removesuffix(", points")
        arm, than = (_title(view, side) for side in claim.sides)
        trained = ""
        if one.verdict != claims.NOT_RUN:
            trained = f" ({wording.seeds([len(runs) for runs in _runs(view, claim)])})"
        small = f"{metric} {_expectation(claim, what.is_share)}: {arm} against {than}"
        cells = [
            Cell(claim.text[:1].upper() + claim.text[1:], small=small + trained),
            _difference(one, what.is_share),
            Cell(one.verdict, best=one.verdict in (claims.HOLDS, claims.FAILS)),
        ]
        rows.append(Row(cells))
    what = "Hypothesis" if found[0].claim.ours else "Claim"
    header = [what, f"difference, points [{LEVEL}]", "verdict"]
    return Table(header, rows, numbers=False)


def _runs(view: StageView, claim: Claim) -> list[list[ArmResult]]:
    """The finished runs of a claim's two sides."""
    return [scores.of_side(view.result, view.others, side) for side in claim.sides]


def _title(view: StageView, side: Side) -> str:
    """What a side is called: its arm, and the stage or split if it names one."""
    stage = view.others.get(side.stage) if side.stage else view.result
    titles = {arm.name: arm.title for arm in stage.arms} if stage else {}
    name = side.arm
    if side.stage and stage and name == "winner" and name not in titles:
        name = stage.winner or name
    more = [f"stage {side.stage}"] if side.stage else []
    more += [f"{wording.SPLITS[side.split]} images"] if side.split else []
    return titles.get(name, name) + (f" ({', '.join(more)})" if more else "")


def _expectation(claim: Claim, is_share: bool) -> str:
    """What is expected of the claim's arm, a few words."""
    if claim.factor is not None:
        text = f"{SIDES[claim.expected]}{claim.factor:g} times as high"
        if claim.expected in ("higher", "lower"):
            return text
        return f"{text} (± {claims.margin(claim, math.nan, is_share):g})"
    expected = "about the same" if claim.expected == "same" else claim.expected
    if claim.margin is None:
        return expected
    margin = f"{100 * claim.margin:g} points" if is_share else f"{claim.margin:g}"
    return f"{expected} (within {margin})"


def _difference(one: Finding, is_share: bool) -> Cell:
    """The difference or ratio that was found, with its interval."""
    if math.isnan(one.difference):
        return Cell("")
    if one.claim.factor is None:
        write = points if is_share else wording.signed
    else:
        write = wording.factor
    small = "" if one.bounds is None else between(*one.bounds, write)
    return Cell(write(one.difference), small=small)


def claims_rows(found: Sequence[Finding]) -> list[dict]:
    """One row of a CSV file for each claim; numbers as they are."""
    rows = []
    for one in found:
        claim = one.claim
        low, high = one.bounds or ("", "")
        row: Mapping[str, object] = {
            "claim": claim.text,
            "source": "ours" if claim.ours else "document",
            "arm": claim.arm,
            "than": claim.than,
            "metric": claim.metric,
            "expected": claim.expected,
            "factor": claim.factor,
            "margin": claim.margin,
            "difference": one.difference,
            "interval_low": low,
            "interval_high": high,
            "verdict": one.verdict,
        }
        rows.append(safe(row))
    return rows
