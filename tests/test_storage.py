"""Files and folders: whole or not there at all, held by one, damaged ones named."""

import errno
import fcntl
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_seg import storage
from keras_seg.errors import LockedError, StorageError, UsageError


def names(folder) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def fail_in(context, file: str | None) -> None:
    """Fail in a context that makes a folder, after writing a file into it."""
    with context as folder:
        if file:
            (folder / file).write_text("half")
        raise ZeroDivisionError


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "history.csv"
    storage.write_file(path, "old")
    storage.write_file(path, b"new")
    assert path.read_text() == "new"
    path.with_name("folder").mkdir()
    with pytest.raises(StorageError, match="folder could not be written: Is a dir"):
        storage.write_file(path.with_name("folder"), "a file")
    assert names(tmp_path) == ["folder", "history.csv"]


def test_what_was_written_is_read_back(tmp_path):
    rows = [{"step": 1, "loss": 0.1}, {"step": 2, "loss": math.nan, "miou": 1 / 3}]
    storage.write_table(tmp_path / "a.csv", rows)
    assert (tmp_path / "a.csv").read_text() == (
        "step,loss,miou\n1,0.1,\n2,,0.3333333333333333\n"
    )
    first, second = storage.read_table(tmp_path / "a.csv")
    assert (first["step"], first["miou"], second["loss"]) == ("1", "", "")
    storage.write_json(tmp_path / "a.json", {"a": [1, None]})
    assert storage.read_json(tmp_path / "a.json") == {"a": [1, None]}
    arrays = {"x": np.arange(6).reshape(2, 3), "names": np.array(["a", "bc"])}
    storage.write_arrays(tmp_path / "a.npz", arrays)
    found = storage.read_arrays(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    assert storage.json_sha256({"a": 1}) == storage.json_sha256({"a": 1})
    assert storage.json_sha256({"a": 1}) != storage.json_sha256({"a": 2})
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "b.json", {"a": math.nan})
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000, "\udcff"])
def test_damaged_json_is_named_with_the_way_out(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(StorageError, match=r"metrics\.json is damaged\. .*Delete it\."):
        storage.read_json(path, "Delete it.")


def test_a_file_holds_the_hash_of_its_own_content(tmp_path):
    storage.write_json(tmp_path / "a.json", {"b": 1, "a": [0.1, None]})
    written = json.loads((tmp_path / "a.json").read_text())
    expected = hashlib.sha256(b'{"b": 1, "a": [0.1, null]}').hexdigest()
    assert list(written.items())[-1] == ("sha256", expected)
    rows = [{"step": 1, "loss": 0.5}, {"step": 2, "miou": 0.25}]
    storage.write_table(tmp_path / "a.csv", rows, hashed=True)
    header, first, second = (tmp_path / "a.csv").read_text().splitlines()
    assert (header, second) == ("step,loss,miou,sha256", "2,,0.25,")
    text = '[{"step": "1", "loss": "0.5", "miou": ""}, '
    text += '{"step": "2", "loss": "", "miou": "0.25"}]'
    assert first == f"1,0.5,,{hashlib.sha256(text.encode()).hexdigest()}"
    assert storage.read_table(tmp_path / "a.csv") == json.loads(text)
    storage.write_arrays(tmp_path / "a.npz", {"x": np.arange(3)})
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert re.fullmatch(b"sha256:[0-9a-f]{64}", archive.comment)
    with np.load(tmp_path / "a.npz") as archive:  # anybody's NumPy reads it
        np.testing.assert_array_equal(archive["x"], np.arange(3))


@pytest.mark.parametrize(
    ("old", "new"),
    [('"miou": 0.5', '"miou": 0.6'), ('"step": 1,', ""), ('"sha256"', '"sha257"')],
    ids=["value", "lost", "name of the hash"],
)
def test_a_changed_json_file_is_refused(old, new, tmp_path):
    path = tmp_path / "metrics.json"
    storage.write_json(path, {"step": 1, "miou": 0.5})
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(StorageError, match=r"metrics\.json is damaged.*or was changed"):
        storage.read_json(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.25", "0.75"),
        ("2,0.5,\n", ""),
        ("sha256\n1", "sha256J1"),
        ("sha256", "sha257"),
    ],
    ids=["value", "lost row", "merged rows", "name of the hash"],
)
def test_a_changed_table_is_refused(old, new, tmp_path):
    path = tmp_path / "history.csv"
    rows = [{"step": 1, "miou": 0.25}, {"step": 2, "miou": 0.5}]
    storage.write_table(path, rows, hashed=True)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(StorageError, match=r"history\.csv is damaged.*or was changed"):
        storage.read_table(path)


def test_a_value_of_another_kind_is_named(tmp_path):
    path = tmp_path / "metrics.json"
    storage.write_json(path, {"step": "one", "loss": None})
    kinds = {"step": int, "loss": float | None, "scored_ids": list | None}
    with pytest.raises(StorageError, match="damaged. Its step is 'one'. Delete it."):
        storage.read_json(path, "Delete it.", kinds)
    del kinds["step"]
    assert storage.read_json(path, kinds=kinds)["step"] == "one"


def test_lines_are_added_read_and_held_against_their_hashes(tmp_path):
    path = tmp_path / "journal.jsonl"
    events = [{"run": "a", "event": "begun"}, {"run": "b", "event": "done"}]
    for event in events:
        storage.append_json(path, event)
    assert storage.read_json_lines(path) == events
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"run": "c", "ev')  # a killed writer
    assert storage.read_json_lines(path) == events
    storage.append_json(path, {"run": "d"})
    assert storage.read_json_lines(path) == [*events, {"run": "d"}]
    path.write_bytes(whole[:-1])  # killed before the end of the line
    assert storage.read_json_lines(path) == events
    storage.append_json(path, {"run": "d"})
    assert storage.read_json_lines(path) == [*events, {"run": "d"}]
    path.write_bytes(whole.replace(b"done", b"dome"))
    with pytest.raises(StorageError, match=r"jsonl is damaged\. Line 2 .*Delete that"):
        storage.read_json_lines(path, "Delete that line.")


def test_what_killed_writers_left_is_swept(tmp_path):
    (tmp_path / ".tmp-1-step-00000003").mkdir()
    (tmp_path / ".tmp-1-history.csv").write_text("half")
    (tmp_path / ".tmp-2-link").symlink_to(tmp_path)
    (tmp_path / "history.csv").write_text("whole")
    storage.sweep(tmp_path)
    assert names(tmp_path) == ["history.csv"]


def test_a_folder_is_held_by_one(tmp_path):
    with storage.lock(tmp_path / "run"):
        with pytest.raises(LockedError) as caught, storage.lock(tmp_path / "run"):
            pass
    assert caught.value.exit_code == 75
    with storage.lock(tmp_path / "run"):
        pass


def test_a_folder_that_was_locked_for_nothing_is_removed(tmp_path):
    run = tmp_path / "new" / "run"
    with pytest.raises(ZeroDivisionError):
        fail_in(storage.lock(run), None)
    assert names(tmp_path) == []
    with storage.lock(run):
        (run / "file").write_text("mine")
    with pytest.raises(ZeroDivisionError):
        fail_in(storage.lock(run), None)
    assert names(run) == [".lock", "file"]


@pytest.fixture
def no_locks(monkeypatch):
    """As a network disk without a lock server; signs of life come fast."""

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(storage, "HEARTBEAT", 0.01)
    monkeypatch.setattr(storage, "SILENCE", 0.3)


def claim(folder, number=1, **holder) -> Path:
    """The claim of some process on a folder."""
    path = folder / f".lock-{number}"
    path.write_text(json.dumps({"machine": storage._machine(), **holder}))
    return path


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_folder_is_held_by_one_too(tmp_path):
    run = tmp_path / "new" / "run"
    with storage.lock(run):
        with pytest.raises(LockedError, match="Another process is working on"):
            fail_in(storage.lock(run), None)
        assert names(run) == [".lock", ".lock-1"]
    assert names(run) == [".lock"]
    with pytest.raises(ZeroDivisionError):
        fail_in(storage.lock(tmp_path / "other"), None)
    assert names(tmp_path) == ["new"]
    with storage.publishing(tmp_path / "data", nothing) as new:
        (new / "file").touch()
    assert names(tmp_path) == ["data", "new"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_every_way_of_having_no_locks_is_known(tmp_path, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with storage.lock(tmp_path / "run"):
        assert names(tmp_path / "run") == [".lock", ".lock-1"]


def test_a_disk_that_fails_is_not_another_process(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match="could not be written: Input/output error"):
        fail_in(storage.lock(tmp_path / "run"), None)


@pytest.mark.usefixtures("no_locks")
def test_the_claim_of_a_dead_process_is_taken_over(tmp_path):
    done = subprocess.Popen(["true"])
    done.wait()
    claim(tmp_path, 3, pid=done.pid, began="1")
    with storage.lock(tmp_path):
        assert names(tmp_path) == [".lock", ".lock-4"]
    claim(tmp_path, 1, pid=os.getpid(), began="1")  # of another with our number
    with storage.lock(tmp_path):
        assert names(tmp_path) == [".lock", ".lock-2"]
    (tmp_path / ".lock-7").touch()  # killed before it said who it is
    with storage.lock(tmp_path):
        assert names(tmp_path) == [".lock", ".lock-8"]
    claim(tmp_path, 1, **storage._process(os.getppid()))
    with pytest.raises(LockedError):
        fail_in(storage.lock(tmp_path), None)


@pytest.mark.usefixtures("no_locks")
def test_a_process_elsewhere_holds_as_long_as_it_gives_signs_of_life(tmp_path):
    theirs = claim(tmp_path, machine="another", pid=1)
    over = threading.Event()

    def beat():
        while not over.wait(0.02):
            os.utime(theirs)

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(LockedError):
            fail_in(storage.lock(tmp_path), None)
    finally:
        over.set()
        heart.join()
    assert theirs.exists()
    with storage.lock(tmp_path):
        assert names(tmp_path) == [".lock", ".lock-2"]


@pytest.mark.usefixtures("no_locks")
def test_of_many_that_come_at_once_never_two_hold_a_folder(tmp_path):
    inside, most, times = [], [], []

    def work(number):
        for _ in range(50):
            try:
                with storage.lock(tmp_path):
                    inside.append(number)
                    most.append(len(inside))
                    times.append(number)
                    inside.remove(number)
            except LockedError:
                pass

    threads = [threading.Thread(target=work, args=[k]) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(times) >= 10
    assert names(tmp_path) == [".lock"]


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_folder_may_be_shared_too(tmp_path):
    with storage.lock(tmp_path, shared=True), storage.lock(tmp_path, shared=True):
        assert names(tmp_path) == [".lock", ".lock-1", ".lock-2"]
        with pytest.raises(LockedError):
            fail_in(storage.lock(tmp_path), None)
    with storage.lock(tmp_path):
        with pytest.raises(LockedError):
            fail_in(storage.lock(tmp_path, shared=True), None)


HOLDER = """
import errno, fcntl, sys, time
from pathlib import Path
from keras_seg import storage

def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")

fcntl.flock, storage.HEARTBEAT = flock, 0.02
with storage.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.usefixtures("no_locks")
def test_a_claim_ends_with_its_process_and_a_lost_one_ends_its_process(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError):
            fail_in(storage.lock(tmp_path), None)
        holder.kill()
    with storage.lock(tmp_path):
        assert names(tmp_path) == [".lock", ".lock-2"]
    with subprocess.Popen(command, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        (tmp_path / ".lock-1").unlink()  # as who takes over does
        assert holder.wait(30) == LockedError.exit_code
        assert "error: another process took over" in holder.stderr.read()


def test_sweeping_removes_what_our_writers_left_and_nothing_else(tmp_path):
    for name in (".tmp-12-step-00000004", ".tmp-draft", ".tmp-"):
        (tmp_path / name).touch()
    storage.sweep(tmp_path)
    assert names(tmp_path) == [".tmp-", ".tmp-draft"]


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "run").write_text("")
    for folder in (tmp_path / "run", tmp_path / "run" / "inside"):
        with pytest.raises(UsageError, match="is a file"), storage.lock(folder):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Name a folder that can be"):
        with storage.lock(tmp_path / "run"):
            pass


def nothing(out):
    """A check that finds nothing to object to."""


def test_a_folder_is_published_whole_and_takes_the_old_ones_place(tmp_path):
    out = tmp_path / "data"
    for text in ("old", "new"):
        with storage.publishing(out, nothing) as new:
            (new / "file").write_text(text)
            assert not out.exists() or (out / "file").read_text() == "old"
    assert (out / "file").read_text() == "new"
    assert names(tmp_path) == ["data"]


def test_an_unfinished_folder_is_never_seen(tmp_path):
    out = tmp_path / "data"
    out.mkdir()
    with storage.publishing(out, nothing) as new:
        with pytest.raises(LockedError), storage.publishing(out, nothing):
            pass
        new.rmdir()
    with pytest.raises(ZeroDivisionError):
        fail_in(storage.publishing(out, nothing), "file")
    assert names(tmp_path) == ["data"]
    assert names(out) == []


def test_a_publisher_killed_between_its_renames_gives_the_old_folder_back(tmp_path):
    old = tmp_path / ".data.partial" / "old"
    old.mkdir(parents=True)
    (old / "file").write_text("old")
    (old.parent / ".made-by-keras_seg").touch()
    seen = []

    def check(out):
        seen.append(out.exists())
        if seen[-1]:
            raise UsageError("It must stay.")

    with pytest.raises(UsageError), storage.publishing(tmp_path / "data", check):
        pass
    assert seen == [False, True]
    assert (tmp_path / "data" / "file").read_text() == "old"


def someones_folder(workshop):
    (workshop / "new").mkdir(parents=True)
    (workshop / "new" / "thesis.txt").write_text("mine")


def someones_note_in_ours(workshop):
    workshop.mkdir()
    (workshop / ".made-by-keras_seg").touch()
    (workshop / "thesis.txt").write_text("mine")


def link_to_someones_folder(workshop):
    (workshop.parent / "elsewhere").mkdir()
    workshop.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "take", [someones_folder, someones_note_in_ours, link_to_someones_folder]
)
def test_a_folder_of_the_workshops_name_is_not_taken(take, tmp_path):
    take(tmp_path / ".data.partial")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=".data.partial is in the way"):
        with storage.publishing(tmp_path / "data", nothing):
            pass
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture(params=["disk", "folder of the same disk", "emulated"])
def mount_point(tmp_path, request, monkeypatch):
    """A folder that cannot be renamed."""
    out = tmp_path / "mounted here"
    out.mkdir()
    (tmp_path / "other").mkdir()
    if request.param == "emulated":
        monkeypatch.setattr(storage, "_mount_points", lambda: {str(out)})
        yield out
        return
    kind = {"disk": ["-t", "tmpfs", "none"], "emulated": []}
    arguments = kind.get(request.param, ["--bind", str(tmp_path / "other")])
    mount = ["mount", *arguments, str(out)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount")
    yield out
    subprocess.run(["umount", str(out)], check=True)


def fill(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(file)


def test_a_mount_point_gets_new_contents(mount_point):
    for files in (("a/x", "b/x", "meta"), ("b/y", "c/y", "meta")):
        with storage.publishing(mount_point, nothing) as new:
            fill(new, *files)
        found = [path for path in mount_point.rglob("*") if path.is_file()]
        assert sorted(path.relative_to(mount_point).as_posix() for path in found) == [
            *files
        ]
        assert storage.contents(mount_point) == sorted({f[:1] for f in files[:2]}) + [
            "meta"
        ]
    with pytest.raises(ZeroDivisionError):
        fail_in(storage.publishing(mount_point, nothing), "half")
    assert storage.contents(mount_point) == ["b", "c", "meta"]


@pytest.mark.parametrize("killed_at", range(9))
def test_a_killed_exchange_of_contents_is_finished(killed_at, tmp_path, monkeypatch):
    """Whatever rename it was: all of the old, or all of the new."""
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(storage, "_mount_points", lambda: {str(out)})
    fill(out, "a/x", "b/x", "meta")
    renames, rename = [], Path.rename

    class Killed(BaseException):
        pass

    def dying(path, target):
        if len(renames) == killed_at:
            raise Killed
        renames.append(path.name)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying)
        # A killed process cleans nothing up.
        patch.setattr(storage.shutil, "rmtree", lambda *_, **__: None)
        try:
            with storage.publishing(out, nothing) as new:
                fill(new, "b/y", "c/y", "meta")
        except Killed:
            pass
    with pytest.raises(ZeroDivisionError):
        fail_in(storage.publishing(out, nothing), None)
    found = sorted(
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()
    )
    assert found == (
        ["a/x", "b/x", "meta"] if killed_at < 4 else ["b/y", "c/y", "meta"]
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_in_one_that_is_not_writable(tmp_path):
    out = tmp_path / "parent" / "out"
    out.mkdir(parents=True)
    out.parent.chmod(0o500)
    with storage.publishing(out, nothing) as new:
        fill(new, "meta")
    assert names(out) == ["meta"]


def test_a_new_folder_replaces_the_old_one_or_leaves_it(tmp_path):
    place = tmp_path / "checkpoints" / "step-1"
    with storage.new_folder(place) as new:
        (new / "a").write_text("old")
    with pytest.raises(ZeroDivisionError):
        fail_in(storage.new_folder(place), "b")
    assert names(place) == ["a"]
    with storage.new_folder(place) as new:
        (new / "b").write_text("new")
    assert names(place) == ["b"]
    assert names(place.parent) == ["step-1"]
