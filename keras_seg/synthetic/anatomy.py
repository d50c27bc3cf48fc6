"""Landmarks of a body, groups of its parts and points on its surface."""

from dataclasses import dataclass

import numpy as np

from keras_seg.synthetic import body


def _table(*parts: int) -> np.ndarray:
    table = np.zeros(body.NUM_PARTS + 1, bool)
    table[list(parts)] = True
    return table


# Groups of parts, bool by part id.
IS_TRUNK = _table(1, 4, 7, 10, 13, 14, 15)
IS_LEG = _table(1, 2, 3, 5, 6, 8, 9, 11, 12)
IS_FOOT = _table(8, 9, 11, 12)
IS_ARM = _table(17, 18, 19, 20, 21, 22, 23, 24)
IS_HAND = _table(21, 22, 23, 24)
IS_HEAD = _table(16)


@dataclass(frozen=True)
class Landmarks:
    """Coordinates on a T-posed body, metres in body axes."""

    hip_y: float
    knee_y: float
    ankle_y: float
    floor_y: float
    chest_y: float
    arm_y: float
    arm_z: float
    shoulder_x: float
    elbow_x: float
    wrist_x: float
    neck_y: float
    neck_z: float
    leg_x: float
    trunk_z: float
    eye: np.ndarray  # centre of the left one
    mouth: np.ndarray
    top_y: float
    skull: np.ndarray  # centre of the head

    @classmethod
    def measure(
        cls, template: body.Template, vertices: np.ndarray, joints: np.ndarray
    ) -> "Landmarks":
        eyes = vertices[np.unique(template.faces[template.is_eye])]
        lips = vertices[template.masks["lips"] > 0.5]
        head = vertices[template.skin[:, body.HEAD] > 0.5]
        hip, knee = joints[body.LEFT_HIP], joints[body.LEFT_KNEE]
        shoulder = joints[body.LEFT_SHOULDER]
        return cls(
            hip_y=hip[1],
            knee_y=knee[1],
            ankle_y=joints[body.LEFT_ANKLE, 1],
            floor_y=vertices[:, 1].min(),
            chest_y=joints[body.SPINE3, 1] + 0.08,
            arm_y=shoulder[1],
            arm_z=shoulder[2],
            shoulder_x=shoulder[0],
            elbow_x=joints[body.LEFT_ELBOW, 0],
            wrist_x=joints[body.LEFT_WRIST, 0],
            neck_y=joints[body.NECK, 1],
            neck_z=joints[body.NECK, 2],
            leg_x=hip[0],
            trunk_z=hip[2],
            eye=eyes[eyes[:, 0] > 0].mean(axis=0),
            mouth=lips.mean(axis=0) * [0, 1, 1],
            top_y=vertices[:, 1].max(),
            skull=(head.min(axis=0) + head.max(axis=0)) / 2,
        )

    def leg_y(self, length: float) -> float:
        """The height of a point on the leg: 0 hip, 1 knee, 2 ankle."""
        return float(
            np.interp(length, [0, 1, 2], [self.hip_y, self.knee_y, self.ankle_y])
        )

    def arm_x(self, length: float) -> float:
        """The x of a point on the arm: 0 shoulder, 1 elbow, 2 wrist."""
        reach = [self.shoulder_x, self.elbow_x, self.wrist_x]
        return float(np.interp(length, [0, 1, 2], reach))


@dataclass(frozen=True)
class SurfacePoints:
    """Points on the T-posed body: position [N, 3], part id [N], mesh id [N]."""

    position: np.ndarray
    part: np.ndarray
    mesh: np.ndarray

    @property
    def x(self) -> np.ndarray:
        return self.position[:, 0]

    @property
    def y(self) -> np.ndarray:
        return self.position[:, 1]

    @property
    def z(self) -> np.ndarray:
        return self.position[:, 2]


def ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """0 outside, rising smoothly to 1 `width` metres inside."""
    share = np.clip(distance / width, 0, 1)
    return share * share * (3 - 2 * share)
