"""docs/reference/documents.md: its commands work, and it has all of each document.

`python tests/test_documents.py` writes the tables of claims, which follow from the
studies.
"""

import re
import shlex
from pathlib import Path

import pytest

from keras_seg import study as studies
from keras_seg.ablation.protocol import SIGNS
from keras_seg.data import prepare
from keras_seg.report import wording
from keras_seg.runs import commands

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "documents.md"
DOCUMENTS = {
    "BODY": "body_parts",
    "CLOTH": "clothing",
    "CITY": "cityscapes",
    "ATTN": "attention_fcn",
    "VOC07": "voc2007",
}
# Tables and figures of the five texts; those without a number have none
TABLES = {"BODY": 6, "CLOTH": 1, "CITY": 4, "ATTN": 3, "VOC07": 4}
FIGURES = {"BODY": 17, "CLOTH": 6, "CITY": 13, "ATTN": 9, "VOC07": 9}
NETWORKS = {
    "BODY": {"icnet", "segnet", "segnet_basic", "hourglass"},
    "CLOTH": {"fcn", "unet", "attention_unet", "unet_bn"},
    "CITY": {"fcn_strided", "fcn_strided_prelu", "fcn_resnet50", "unet_slim"},
    "ATTN": {"fcn", "fcn_attention"},
    "VOC07": {"fcn_strided", "fcn_dilated_tanh", "fcn_resnet34", "unet_valid"},
}
COLUMNS = {  # metrics of claims that are no score
    "train_val_gap": "training − validation mIoU",
    "train_loss_fall": "fall of the training loss",
    "jump": "jump at half of the steps",
    "ms_per_image": "ms/image",
    "parameters": "parameters",
}
COMMAND = re.compile(r"(?:`|^ {4})(python [^`\n]*)", re.MULTILINE)


def sections() -> dict[str, str]:
    """{document: its section of the page}."""
    parts = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    named = {part.partition(":")[0]: part for part in parts}
    return {name: named[name] for name in DOCUMENTS}


def rows(section: str) -> list[list[str]]:
    """The cells of the rows of its first table, without the header."""
    table = section[section.index("| in the text |") :].partition("\n\n")[0]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in table.splitlines()[2:]
    ]


def all_commands() -> list[str]:
    return sorted({found for found in COMMAND.findall(PAGE.read_text())})


def stages_of(section: str) -> set[tuple[str, str]]:
    """(plan, stage) of the commands of a section."""
    found = set()
    for words in map(shlex.split, COMMAND.findall(section)):
        if words[1] == "ablations/run.py":
            request = studies.parse(words[2:], "run")
            found.add((request.net or "networks", request.stage))
    return found


@pytest.mark.parametrize("command", all_commands())
def test_every_command_parses_and_plans(command, capsys):
    _, script, *words = shlex.split(command)
    if script == "ablations/run.py":
        if "--data" in words:  # a folder that the reader has made
            at = words.index("--data")
            words = words[:at] + words[at + 2 :]
        assert studies.main([*words, "--scale", "paper", "--plan"]) == 0
        assert len(capsys.readouterr().out.splitlines()) > 1
    elif script == "tools/summary.py":
        args = commands.summary_arguments(words)
        assert args.layers or args.diagram
    else:
        assert script == "datasets/prepare.py"
        name, *rest = words
        if name in ("show", "verify"):
            assert rest[0].startswith("datasets/prepared/")
        else:
            prepare.parse(name, rest)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_stage_network_table_and_figure_is_there(name):
    section = sections()[name]
    study = studies.load(DOCUMENTS[name])
    declared = {
        (net, stage.name) for net, plan in study.plans.items() for stage in plan.stages
    }
    missing = declared - stages_of(section)
    assert not missing, f"no command runs {missing}"
    nets = re.findall(r"tools/summary\.py (\w+) --layers", section)
    assert set(nets) == NETWORKS[name]
    first = " ".join(row[0] for row in rows(section))
    for kind, most in (("Table", TABLES[name]), ("Fig.", FIGURES[name])):
        assert numbers_after(kind, first) == set(range(1, most + 1)), kind


def numbers_after(kind: str, text: str) -> set[int]:
    """The numbers that follow "Fig." or "Table": 1 and 2, 4 to 6."""
    found: set[int] = set()
    for numbers in re.findall(rf"{re.escape(kind)} (\d[\d toand]*)", text):
        if span := re.match(r"(\d+) to (\d+)", numbers):
            found |= set(range(int(span[1]), int(span[2]) + 1))
        else:
            found |= {int(number) for number in re.findall(r"\d+", numbers)}
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_row_has_a_command(name):
    for row in rows(sections()[name]):
        assert len(row) == 4, row
        assert COMMAND.search(row[2]), row


# Claims


def claims_table(name: str) -> str:
    """The document's claims as the studies check them, with the stage's command."""
    study = studies.load(name)
    lines = ["| claim | checked as | command |", "| --- | --- | --- |"]
    signs = {word: sign for sign, word in SIGNS.items()}
    for net, plan in study.plans.items():
        for stage in plan.stages:
            which = [f"--study {name}"] if name != "body_parts" else []
            which += [f"--net {net}"] if net != "networks" else []
            command = " ".join(["python ablations/run.py", *which, "--stage"])
            for claim in stage.claims:
                if claim.ours:
                    continue
                factor = "" if claim.factor is None else f"{claim.factor:g} × "
                metric = COLUMNS.get(claim.metric) or wording.metric(claim.metric)
                checked = f"{claim.arm} {signs[claim.expected]} {factor}{claim.than}"
                cells = [claim.text, f"`{checked}`, {metric}"]
                cells.append(f"`{command} {stage.name}`")
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_claims(text: str) -> str:
    """The page with the tables of claims that the studies make."""
    for name in DOCUMENTS.values():
        begin, end = f"<!-- claims of {name} -->\n", "<!-- /claims -->"
        before, _, after = text.partition(begin)
        rest = after.partition(end)[2]
        text = f"{before}{begin}{claims_table(name)}\n{end}{rest}"
    return text


def test_every_claim_is_there_with_its_command():
    assert PAGE.read_text() == with_claims(PAGE.read_text()), (
        "python tests/test_documents.py"
    )


if __name__ == "__main__":
    PAGE.write_text(with_claims(PAGE.read_text()))
