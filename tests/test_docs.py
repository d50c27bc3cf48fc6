"""README and docs are true: commands, links, settings, abbreviations, examples."""

import importlib
import inspect
import json
import re
import shlex
import subprocess
import sys
import types
from dataclasses import MISSING
from pathlib import Path

import pytest

from keras_seg import command_line, config, data, study
from keras_seg.__main__ import VERBS, call
from keras_seg.data import prepare
from keras_seg.errors import INTERRUPTED_EXIT_CODES, KerasSegError
from keras_seg.runs import recipes
from keras_seg.synthetic import __main__ as synthetic

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "docs" / "reference" / "settings.md"
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("datasets/*.md")]
)
PAGES += sorted((ROOT / "ablations" / "results").rglob("*.md"))
DOCUMENTS = ("BODY", "CLOTH", "CITY", "ATTN", "VOC07")
# References that no reader can follow, and phrases that are no English
FORBIDDEN = "|".join(
    [
        "[Ss]pec [0-9]|[Dd]ecision [0-9]|so-maniet[h]",
        r"\b[s]itting|\bgo(es|ing)? on (to|at|with)",
        r"performance\.md|reliability\.md|/work/",
    ]
)


def page_id(page):
    return str(page.relative_to(ROOT))


# The reference of the settings


def settings_page() -> str:
    """docs/reference/settings.md: `python tests/test_docs.py > docs/reference/...`."""
    lines = [
        "# Settings",
        "",
        "Every setting of a run, by its path, as JSON, `--set` and reports name it. A",
        "network's own options (knobs) are set as `net.NAME`; each file of",
        "`keras_seg/nets` documents its own.",
        "",
        "<!-- Made by: python tests/test_docs.py > docs/reference/settings.md -->",
    ]
    part = None
    for path, hint, default, help, choices in config.settings():
        if part != path.rpartition(".")[0]:
            part = path.rpartition(".")[0]
            lines += ["", f"## {part or 'The run'}", ""]
            lines += ["| setting | type | default | meaning | values |"]
            lines += ["| --- | --- | --- | --- | --- |"]
        kind = hint.__name__ if isinstance(hint, type) else str(hint)
        shown = json.dumps(config.plain(default)) if default is not MISSING else ""
        cells = [f"`{path}`", f"`{kind}`", f"`{shown}`" if shown else "required", help]
        cells.append(", ".join(f"`{choice}`" for choice in choices))
        row = " | ".join(cell.replace("|", r"\|") for cell in cells)
        lines.append(f"| {row} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"


def test_the_settings_page_is_up_to_date():
    assert SETTINGS.read_text() == settings_page(), (
        "run: python tests/test_docs.py > docs/reference/settings.md"
    )


# The recipes

RECIPES = ROOT / "docs" / "how-to" / "recipes.md"


def recipe_table(name) -> str:
    """The table of a recipe between its marks in docs/how-to/recipes.md."""
    lines = ["| setting | value | why | source |", "| --- | --- | --- | --- |"]
    for path, line in recipes.read(name).items():
        value = json.dumps(line["value"])
        lines.append(f"| `{path}` | `{value}` | {line['reason']} | {line['source']} |")
    return "\n".join(lines)


def with_recipes(text: str) -> str:
    """The page with every table as its recipe has it: `test_docs.py recipes`."""
    for name in recipes.names():
        table = recipe_table(name).replace("\\", r"\\")
        marks = rf"(<!-- recipe {name} -->\n).*?(<!-- /recipe -->)"
        text, found = re.subn(marks, rf"\1{table}\n\2", text, flags=re.DOTALL)
        assert found == 1, name
    return text


def test_the_page_has_every_recipe():
    text = RECIPES.read_text()
    assert text == with_recipes(text), "run: python tests/test_docs.py recipes"


# Links and words


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    for target in targets + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE):
        if not target.startswith(("http://", "https://")):
            file, _, anchor = target.partition("#")
            place = page.parent / file if file else page
            assert place.exists(), target
            assert not anchor or anchor in anchors(place), target


def test_every_page_is_reachable_from_the_readme():
    found, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        found.add(page)
        links = re.findall(r"\]\(([^)\s#]+\.md)[^)]*\)", page.read_text())
        targets = {(page.parent / link).resolve() for link in links}
        waiting += [one for one in targets if one.is_file() and one not in found]
    assert set((ROOT / "docs").rglob("*.md")) <= found


def test_no_text_refers_to_what_a_reader_does_not_have():
    command = ["git", "grep", "-nE", FORBIDDEN, "--", ".", ":!tests/test_docs.py"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if found.returncode == 128:
        pytest.skip("not a git checkout")
    assert found.stdout == ""


@pytest.mark.parametrize("page", ["README.md", "docs/reference/documents.md"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_abbreviations_are_defined_where_they_are_first_used(page, name):
    first = next(
        line
        for line in (ROOT / page).read_text().splitlines()
        if re.search(rf"\b{name}\b", line)
    )
    assert re.search(rf"\*\*{name}\*\*.*\*[A-Z].*\*.*(20\d\d|undated)", first), first


def test_the_page_lists_every_exit_code():
    text = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    listed = re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE)
    codes = {kind.exit_code for kind in KerasSegError.__subclasses__()} | {0, 1}
    codes |= set(INTERRUPTED_EXIT_CODES.values())
    assert {int(code) for line in listed for code in line.split(",")} == codes


# Commands


def commands(page):
    """The command lines of a page's code blocks, as words."""
    text = page.read_text().replace("\\\n", " ")
    for line in re.findall(
        r"^(?:    )?((?:\w+=\w+ )?(?:python|keras-seg) .*)$", text, re.M
    ):
        words = [
            word for word in shlex.split(line, comments=True) if "=auto" not in word
        ]
        yield words[1:] if words[0] == "python" else words


class ParsedError(Exception):
    """A command line was right; nothing is to be done."""


@pytest.fixture
def parse(monkeypatch):
    """Parses the words of a command; gives its options, None if it is not ours."""
    parse_args = command_line.Parser.parse_args

    def parse_and_stop(self, argv):
        raise ParsedError(parse_args(self, argv))

    monkeypatch.setattr(command_line.Parser, "parse_args", parse_and_stop)

    def parse(words):
        script, rest = Path(words[0]), words[1:]
        if script.suffix == ".py":
            assert (ROOT / script).is_file(), script
        if words[0] == "keras-seg":
            main = call
        elif words[:2] == ["-m", "keras_seg.synthetic"]:
            main, rest = synthetic.main, rest[1:]
        elif script.parent.name in DOORS:
            main = DOORS[script.parent.name](script.stem)
        else:
            return None
        with pytest.raises(ParsedError) as parsed:
            main(rest)
        return parsed.value.args[0]

    return parse


DOORS = {
    "tools": lambda name: importlib.import_module(name).main,
    "ablations": lambda name: study.main,
    "datasets": lambda name: prepare.main,
}


def test_commands_are_found():
    assert len(list(commands(ROOT / "README.md"))) >= 7


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_parse(page, parse):
    for words in commands(page):
        options = parse(words)
        for setting in getattr(options, "set", None) or ():
            config.set_path({}, *config.parse_setting(setting))
        if getattr(options, "stage", None) and options.study in study.names():
            plans = study.load(options.study).plans
            asked = [plans[options.net]] if options.net else plans.values()
            known = {stage.name for plan in asked for stage in plan.stages}
            known |= {"all", "compare"}
            assert options.stage in known, words


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_scripts_verbs_and_targets_exist(page):
    text = page.read_text()
    for script in re.findall(r"python ((?:\w+/)+\w+\.py)", text):
        assert (ROOT / script).is_file(), script
    for verb in re.findall(r"`keras-seg (\w+)", text):
        assert verb in VERBS
    targets = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^    )make ([\w-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", targets, re.MULTILINE), target


# Files that a reader of the page makes
MADE = {"keras_seg/nets/tiny_fcn.py", "keras_seg/data/cracks.py", "datasets/cracks.md"}
MADE |= {"ablations/studies/streets.py"}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_files_exist(page):
    roots = "keras_seg|datasets|ablations|tools|tests|docs"
    named = set(re.findall(rf"`((?:{roots})/[\w./-]+\.(?:py|md))`", page.read_text()))
    if page.name != "CHANGELOG.md":  # which names what is gone
        assert not {file for file in named - MADE if not (ROOT / file).is_file()}


def test_the_readme_lists_every_module():
    text = (ROOT / "README.md").read_text().partition("\n    keras_seg/\n")[2]
    listed = re.findall(r"^      ([\w.]+)/? ", text.partition("\n\n")[0], re.MULTILINE)
    package = ROOT / "keras_seg"
    there = [file.name for file in package.glob("*.py")]
    there += [file.parent.name for file in package.glob("*/__init__.py")]
    assert sorted(listed) == sorted(there)


# The examples of CONTRIBUTING.md that test_contributing.py does not run


def example(heading):
    """The code blocks of a section of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.partition(f"\n## Adding a {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_the_loss_of_the_example_passes_the_tests_of_every_loss(monkeypatch):
    import test_losses

    code, line, row = example("loss")
    names = dict(vars(test_losses.losses))
    exec(code, names)
    losses = types.SimpleNamespace(**names)
    monkeypatch.setattr(test_losses.losses, "Poly1", losses.Poly1, raising=False)
    added = dict(config.LOSSES) | eval(f"{{{line}}}", vars(config))
    for module in (config, test_losses.losses):
        monkeypatch.setattr(module, "LOSSES", added)
    loss, oracle = eval(f"{{{row}}}", vars(test_losses) | {"losses": losses})["poly1"]
    built = test_losses.losses.build(config.LossSettings(name="poly1"), None)
    assert type(built) is type(loss)
    others = {"scale": 1, "true": 0, "unknown": 4, "label_size": (7, 9), "size": (3, 4)}
    found = []
    for name, test in inspect.getmembers(test_losses, inspect.isfunction):
        arguments = set(inspect.signature(test).parameters)
        if name.startswith("test_") and {"loss", "oracle"} <= arguments:
            given = {"loss": loss, "oracle": oracle} | others
            test(**{argument: given[argument] for argument in arguments})
            found.append(name)
    assert len(found) >= 5


def test_the_weighting_of_the_example_passes_its_row(monkeypatch):
    import test_class_weights

    from keras_seg import class_weights

    code, line, row = example("class weighting")
    names = dict(vars(class_weights))
    exec(code, names)
    added = dict(class_weights.WEIGHTINGS) | eval(f"{{{line}}}", names)
    monkeypatch.setattr(class_weights, "WEIGHTINGS", added)
    test_class_weights.test_from_counts(*eval(row.strip().rstrip(",")))


def test_the_dataset_of_the_example_passes_its_row(tmp_path, capsys, monkeypatch):
    import miniatures
    import test_data

    code, line, miniature, row = example("dataset")
    module = types.ModuleType("keras_seg.data.cracks")
    exec(code, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    added = dict(data.DATASETS) | eval(f"{{{line}}}")
    monkeypatch.setattr(data, "DATASETS", added)
    names = dict(vars(miniatures))
    exec(miniature, names)
    names = vars(test_data) | {"miniatures": types.SimpleNamespace(**names)}
    rows = test_data.ROWS | eval(f"{{{row}}}", names)
    monkeypatch.setattr(test_data, "ROWS", rows)
    test_data.test_labels_are_those_of_the_raw_files("cracks", tmp_path / "labels")
    capsys.readouterr()
    test_data.test_prepare_verify_show_and_train("cracks", tmp_path / "all", capsys)


if __name__ == "__main__":
    if sys.argv[1:] == ["recipes"]:
        RECIPES.write_text(with_recipes(RECIPES.read_text()))
    else:
        print(settings_page(), end="")
