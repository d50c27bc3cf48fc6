"""tools/reliability.py: the arithmetic of its verdicts, and their limits.

The figures themselves belong to a machine.
"""

import types

import pytest
import reliability


def save(at, seconds, folder="checkpoints"):
    return {"at": at, "seconds": seconds, "folder": folder}


@pytest.mark.parametrize(
    ("seconds", "share", "is_fine"), [(0.3, "0.75%", True), (0.9, "2.25%", False)]
)
def test_saving_counts_the_regular_checkpoints(seconds, share, is_fine):
    saves = [save(40.0, seconds), save(60.0, 0.5, "best"), save(90.0, seconds)]
    saves += [save(95.0, 9.0, "best"), save(99.0, 9.0)]  # at the end: not regular
    line, verdict = reliability.saving(10.0, saves)
    # Two of 80 seconds; 0.5 of 80 for the best weights
    assert f"{share} of the time: 2 checkpoints of {seconds:.2f} s in 80 s" in line
    assert "0.62% for 1 best weights" in line
    assert verdict == is_fine


def test_saving_without_a_checkpoint_is_no_success():
    for saves in ([], [save(99.0, 0.1)]):  # it ended before one, or with its last one
        line, verdict = reliability.saving(10.0, saves)
        assert line.startswith("no checkpoint in ")
        assert not verdict


@pytest.mark.parametrize(("late", "is_fine"), [(9.0, True), (23.0, False)])
def test_resuming_is_compared_with_starting(late, is_fine):
    line, verdict = reliability.resuming([8.0] * 3, [late, late, 60.0])
    assert f"{late - 8:+.1f} s ({late - 8:+.1f} to +52.0 in 3 pairs" in line
    assert verdict == is_fine


@pytest.mark.parametrize(("ratio", "is_fine"), [(1.04, True), (1.06, False)])
def test_determinism_is_a_median_of_ratios(ratio, is_fine):
    line, verdict = reliability.determinism([ratio, 0.5, 9.0])
    assert f"{ratio:.3f} times (0.500 to 9.000 in 3 pairs" in line
    assert verdict == is_fine


@pytest.mark.parametrize(
    ("seconds", "share", "is_fine"), [(0.09, "1.80%", True), (0.11, "2.20%", False)]
)
def test_hashing_is_a_share_of_the_step_beside_it(seconds, share, is_fine):
    """Of the machine's slow turn, both are slow; five steps are a turn."""
    turns = [(seconds, 5.0), (9 * seconds, 45.0), (0.05, 5.0), (0.5, 5.0)]
    line, verdict = reliability.hashing(turns)
    assert f"{share} of a step (1.00% to 10.00% in 4 pairs; " in line
    assert verdict == is_fine


def test_hashing_is_timed_without_reading(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(bytes(5_000_000))
    sample = types.SimpleNamespace(image=path, label=path)
    few, many = (reliability.hashing_seconds([sample] * n) for n in (1, 4))
    assert 0 < few < many
