"""Every changing system call fails, or the process dies in it: nothing is lost.

tests/faulty_disk.c is compiled and preloaded; tests/faulty_disk.py leads the lives of a
run, a preparation, one that overwrites, and a stage of two arms. After each fault
nothing is half-written, no checkpoint that was saved is lost, the error is a foreseen
one, and the same command ends with the same bits. `make test-all` fails every call in
four ways; otherwise some calls fail in one way each.
"""

import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc")
FAULTS = ("ENOSPC", "EDQUOT", "EIO", "kill")
STORAGE, ARMS_FAILED, KILLED = 5, 6, -9
pytestmark = pytest.mark.skipif(
    COMPILER is None or not sys.platform.startswith("linux"),
    reason="needs Linux and a C compiler",
)


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Path:
    """The compiled library."""
    assert COMPILER is not None
    library = tmp_path_factory.mktemp("disk") / "faulty_disk.so"
    words = [COMPILER, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library]
    subprocess.run([*words, HERE / "faulty_disk.c", "-ldl"], check=True)
    return library


def lead(disk: Path, folder: Path, lives: str, *numbers: object) -> list[dict]:
    """For each life, its counts in peace and a record of each one with a fault."""
    command = [sys.executable, HERE / "faulty_disk.py", lives, folder, *numbers]
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "LD_PRELOAD": str(disk)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def faults_of(life: str, record: dict) -> list[str]:
    """What went otherwise than promised."""
    wrong = [key for key in ("unforeseen", "half", "lost", "differs") if record[key]]
    wrong += ["again"] if record["again"] != 0 else []
    allowed = {STORAGE} if record["fault"] != "kill" else {KILLED}
    if life == "stage":
        allowed.add(ARMS_FAILED)
    # Where the call was not needed, as removing what is swept later, all is well
    is_whole = record["code"] == 0 and record["is_whole"] and record["fault"] != "kill"
    return wrong + ([] if record["code"] in allowed or is_whole else ["code"])


def check(life: str, records: list[dict]) -> None:
    peace, *cases = records
    codes = collections.Counter((case["fault"], case["code"]) for case in cases)
    print(
        f"{life}: {peace['calls']} changing calls, {peace['kinds']}; {len(cases)} cases"
    )
    print(*(f"{fault} -> {code}: {n}" for (fault, code), n in sorted(codes.items())))
    wrong = [(faults_of(life, case), case) for case in cases]
    assert [one for one in wrong if one[0]] == []
    assert all(case["failed"] for case in cases)  # every fault was injected


@pytest.fixture(scope="module")
def some_faults(disk, tmp_path_factory) -> dict[str, list[dict]]:
    """{life: records}, of one process."""
    folder = tmp_path_factory.mktemp("lives")
    found: dict[str, list[dict]] = {}
    for record in lead(disk, folder, "run,prepare,stage", 41, 29, "one"):
        found.setdefault(record["life"], []).append(record)
    return found


@pytest.mark.parametrize("life", ["run", "prepare", "stage"])
def test_some_calls_fail_and_nothing_is_lost(life, some_faults):
    check(life, some_faults[life])
    assert len(some_faults[life]) > 2


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("life", ["run", "prepare", "overwrite", "stage"])
def test_every_call_fails_in_every_way_and_nothing_is_lost(life, first, disk, tmp_path):
    records = lead(disk, tmp_path / "life", life, 2, first)
    check(life, records)
    calls = len(range(first, records[0]["calls"], 2))
    assert len(records) == 1 + len(FAULTS) * calls
