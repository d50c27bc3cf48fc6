"""The 20 motion clips: sampled at any time, looped, mirrored and varied.

Clips have 30 frames a second: local rotations (axis-angle) of the T-posed body and the
path of the middle of the hips, in body axes, for a leg of 0.83 m. NOTICE names their
sources.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial.transform import Rotation

from keras_seg.synthetic import body

FPS = 30
LEG_M = 0.83  # leg length of the figure that the clips were made for


@dataclass(frozen=True)
class Motion:
    """pose float32 [T, 24, 3], root float32 [T, 3]; whether the end meets the start."""

    pose: np.ndarray
    root: np.ndarray
    loops: bool

    @property
    def seconds(self) -> float:
        return len(self.pose) / FPS if self.loops else (len(self.pose) - 1) / FPS


@lru_cache(maxsize=1)
def load_all() -> dict[str, Motion]:
    with np.load(body.ASSETS / "motion.npz") as assets:
        names = sorted(k.removesuffix("_pose") for k in assets if k.endswith("_pose"))
        return {
            name: Motion(
                assets[f"{name}_pose"],
                assets[f"{name}_root"],
                bool(assets[f"{name}_loops"]),
            )
            for name in names
        }


def _turn_about_y(rotation: Rotation) -> float:
    """The angle of a rotation's component about the vertical."""
    _, y, _, w = rotation.as_quat()
    return 2 * np.arctan2(y, w)


def sample(motion: Motion, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pose [T, 24, 3], axis-angle, and root [T, 3], metres, at any times [T], seconds.

    A looping clip never ends: each round starts where the previous one ended, in the
    direction that it had reached. The others play forwards and backwards in turn.
    """
    last = len(motion.pose) - 1
    position = np.asarray(times) * FPS
    if motion.loops:
        period = last + 1
        rounds, position = np.divmod(position, period)
        # The frame after the last one is the first of the next round.
        root = np.concatenate([motion.root, 2 * motion.root[-1:] - motion.root[-2:-1]])
        pose = np.concatenate([motion.pose, motion.pose[:1]])
        before, last_turn = Rotation.from_rotvec(motion.pose[-2:, 0])
        end_turn = last_turn * before.inv() * last_turn
        pose[-1, 0] = end_turn.as_rotvec()
        turn = _turn_about_y(end_turn * Rotation.from_rotvec(motion.pose[0, 0]).inv())
    else:
        rounds = np.zeros(len(position))
        position = last - np.abs(position % (2 * last) - last)
        root, pose, turn = motion.root, motion.pose, 0.0
    first = np.minimum(position.astype(int), len(pose) - 2)
    share = position - first
    start, end = (
        Rotation.from_rotvec(pose[index].reshape(-1, 3)) for index in (first, first + 1)
    )
    step = (start.inv() * end).as_rotvec() * np.repeat(share, body.NUM_JOINTS)[:, None]
    sampled = (start * Rotation.from_rotvec(step)).as_rotvec().reshape(-1, 24, 3)
    path = root[first] + share[:, None] * (root[first + 1] - root[first])

    shift = root[-1] - root[0]
    shift[1] = 0
    once = Rotation.from_rotvec([0, turn, 0])
    placed, heading, pivot = np.zeros(3), Rotation.identity(), root[0] * [1, 0, 1]
    for number in range(int(rounds.max()) + 1):
        now = rounds == number
        path[now] = heading.apply(path[now] - pivot) + placed + pivot
        sampled[now, 0] = (heading * Rotation.from_rotvec(sampled[now, 0])).as_rotvec()
        placed = placed + heading.apply(shift)
        heading = heading * once
    return sampled, path


def mirrored(pose: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same motion of the mirror image of the body (left and right exchanged)."""
    return (
        pose[:, body.MIRRORED_JOINTS] * np.array([1, -1, -1]),
        root * np.array([-1, 1, 1]),
    )


def pelvis_path(pose: np.ndarray, root: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """The path of a body's pelvis joint, metres [T, 3]; the floor is at y = 0."""
    hips = (joints[body.LEFT_HIP] + joints[body.RIGHT_HIP]) / 2
    leg = joints[body.LEFT_HIP, 1] - joints[body.LEFT_ANKLE, 1]
    above = Rotation.from_rotvec(pose[:, 0]).apply(joints[body.PELVIS] - hips)
    return root * (leg / LEG_M) + above


ARM_JOINTS = np.arange(13, 24)[np.arange(13, 24) != body.HEAD]

# How far a joint deviates from the clip throughout: standard deviations in radians
# about x (bend), y (twist) and z (sideways).
POSE_DEVIATIONS = {
    (3, 6, 9): (0.05, 0.06, 0.04),
    (12, 15): (0.10, 0.22, 0.06),
    (1, 2): (0.05, 0.05, 0.04),
    (16, 17): (0.12, 0.18, 0.18),
    (18, 19): (0.06, 0.30, 0.06),
    (20, 21): (0.25, 0.12, 0.20),
    (22, 23): (0.05, 0.05, 0.30),
}


def vary(rng: np.random.Generator, pose: np.ndarray) -> np.ndarray:
    """The same motion in another posture: every joint turned by a constant."""
    offsets = np.zeros((body.NUM_JOINTS, 3))
    for joints, deviations in POSE_DEVIATIONS.items():
        for joint in joints:
            offsets[joint] = np.clip(rng.standard_normal(3), -2, 2) * deviations
    offsets[7:9] = -offsets[1:3]  # feet keep their angle to the floor
    varied = Rotation.from_rotvec(pose.reshape(-1, 3)) * Rotation.from_rotvec(
        np.tile(offsets, (len(pose), 1))
    )
    return varied.as_rotvec().reshape(pose.shape)
