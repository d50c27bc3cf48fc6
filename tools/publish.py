"""Copy a report to a place where others read it, with smaller pictures.

python tools/publish.py RUNS/body_parts/icnet ablations/results/icnet-synthetic_humans
python tools/publish.py --no-photographs CAMVID/body_parts/icnet TO

Of the folder of a network's stages: report.md, the tables, and the figures that the
report shows, with 64 colours each; not the runs, which the report then does not list.
TO is replaced as a whole. With --no-photographs, pictures that show images of the data
set are left out, and the report says so where they were: most licences do not allow
passing them on.
"""

import argparse
import io
import re
import shutil
import sys
from pathlib import Path

from PIL import Image

from keras_seg import command_line, storage
from keras_seg.errors import UsageError

COLOURS = 64
PUBLISHED = {"report.md", "figures", "tables"}
# Figures STAGE-pictures.png, STAGE-sheet-NAME.png, ... that show images of the data
PHOTOGRAPH = re.compile("-(pictures|sheet|extremes|disputed)(-|$)")
FIGURE = re.compile(r"^!\[.*\]\(figures/(?P<name>[^)]*)\)$", re.MULTILINE)
LEFT_OUT = "(Left out here: images of the data set.)"
# Lines "* [file](file): what it is" of a report's list of files
FILES = re.compile(
    r"(?:^\* \[[^\]]*\]\((?!figures/|tables/|[a-z]+:)[^)#]*\).*\n)+", re.MULTILINE
)
NO_FILES = "* The folders of the runs are not published.\n"


def main(argv: list[str]) -> int:
    parser = command_line.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, metavar="FROM")
    parser.add_argument("folder", type=Path, metavar="TO")
    parser.add_argument("--no-photographs", action="store_true")
    args = parser.parse_args(argv)
    publish(args.report, args.folder, not args.no_photographs)
    return 0


def publish(report: Path, folder: Path, photographs: bool) -> None:
    """Replace `folder` by what of the report's folder others read.

    Raises:
        UsageError: there is no report, or `folder` holds other things.
    """
    if not (report / "report.md").is_file():
        raise UsageError(f"{report} has no report.md; name the folder of a report.")
    held = {entry.name for entry in folder.iterdir()} if folder.exists() else PUBLISHED
    if not ("report.md" in held and held <= PUBLISHED):
        raise UsageError(f"{folder} is no published report; name another folder.")
    if report.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise UsageError(f"{folder} is in {report}; name a folder elsewhere.")
    text = FILES.sub(NO_FILES, (report / "report.md").read_text("utf-8"))
    figures = [found["name"] for found in FIGURE.finditer(text)]
    if not photographs:
        shown = [name for name in figures if not is_photograph(name)]
        text = FIGURE.sub(lambda m: m[0] if m["name"] in shown else LEFT_OUT, text)
        figures = shown
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    (new / "figures").mkdir(parents=True)
    storage.write_file(new / "report.md", text)
    for name in figures:
        content = with_few_colours(report / "figures" / name)
        storage.write_file(new / "figures" / name, content)
    shutil.copytree(report / "tables", new / "tables")
    if folder.exists():
        shutil.rmtree(folder)
    new.rename(folder)


def is_photograph(name: str) -> bool:
    return PHOTOGRAPH.search(Path(name).stem) is not None


def with_few_colours(path: Path) -> bytes:
    """A PNG with a palette: charts lose nothing one sees, photographs little."""
    content = io.BytesIO()
    with Image.open(path) as image:
        quantised = image.convert("RGB").quantize(COLOURS)
        quantised.save(content, "PNG", optimize=True)
    return content.getvalue()


if __name__ == "__main__":
    sys.exit(command_line.run(main))
