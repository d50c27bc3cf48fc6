"""The parametric human body: 13,524 vertices, 24 joints in SMPL's order.

A linear model made from MakeHuman's CC0 base mesh (see NOTICE and
tools/build_assets.py): vertices = mean + sum_k b_k direction_k with b ~ N(0, 1), and
likewise the joints. Body axes in metres: x to the body's left, y up, z forward. The
rest pose is SMPL's T-pose with the pelvis joint at the origin.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

ASSETS = Path(__file__).parent / "assets"
SEXES = ("female", "male")  # their ids in SURREAL's `gender`
NUM_JOINTS = 24
NUM_SHAPES = 10
NUM_PARTS = 24  # part id = joint id + 1; 0 is the background

PELVIS, LEFT_HIP, RIGHT_HIP, LEFT_KNEE, LEFT_ANKLE = 0, 1, 2, 4, 7
SPINE3, NECK, HEAD = 9, 12, 15
LEFT_SHOULDER, LEFT_ELBOW, LEFT_WRIST = 16, 18, 20
# The joint that each one becomes in a mirrored body; part ids are one higher.
MIRRORED_JOINTS = np.array(
    [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12]
    + [14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
)


@dataclass(frozen=True)
class Template:
    """The body model of one sex; V = 13,524 vertices, F = 27,036 triangles."""

    mean: np.ndarray  # float32 [V, 3], metres
    directions: np.ndarray  # float32 [10, V, 3]
    joints: np.ndarray  # float32 [24, 3]
    joint_directions: np.ndarray  # float32 [10, 24, 3]
    faces: np.ndarray  # int32 [F, 3], counter-clockwise seen from outside
    face_part: np.ndarray  # uint8 [F], part ids 1..24
    is_eye: np.ndarray  # bool [F]
    skin: np.ndarray  # float32 [V, 24], weights of the joints; rows sum to 1
    parents: np.ndarray  # int [24], -1 for the pelvis
    masks: dict[str, np.ndarray]  # float32 [V] in 0..1: ears, eyelids, face, lips, ...
    garments: dict[str, dict[str, np.ndarray]]  # the meshes "skirt" and "hair"

    def shaped(self, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vertices [V, 3] and joints [24, 3] of the T-posed body with shape [10]."""
        shape = np.asarray(shape, np.float32)
        vertices = self.mean + np.tensordot(shape, self.directions, 1)
        return vertices, self.joints + np.tensordot(shape, self.joint_directions, 1)

    def garment(
        self, name: str, vertices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A mesh worn over a T-posed body with these vertices.

        vertices float32 [N, 3], skin [N, 24], faces int32 [M, 3], face_part uint8 [M].
        """
        mesh = self.garments[name]
        anchors = vertices[mesh["anchor_ids"]]
        points = np.einsum("nk,nka->na", mesh["anchor_weights"], anchors)
        return points + mesh["offset"], mesh["skin"], mesh["faces"], mesh["face_part"]


def _dense(ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float32 [V, 24], rows of sum 1, of joint ids [V, 4] and their weights."""
    skin = np.zeros((len(ids), NUM_JOINTS), np.float32)
    np.put_along_axis(skin, ids.astype(int), weights.astype(np.float32), axis=1)
    return skin / skin.sum(axis=1, keepdims=True)


@lru_cache(maxsize=2)
def load(sex: str) -> Template:
    """The body model of one of SEXES."""
    with np.load(ASSETS / "body.npz") as assets:
        return Template(
            mean=assets[f"{sex}_mean"],
            directions=assets[f"{sex}_directions"].astype(np.float32),
            joints=assets[f"{sex}_joints"],
            joint_directions=assets[f"{sex}_joint_directions"],
            faces=assets["faces"].astype(np.int32),
            face_part=assets["face_part"],
            is_eye=assets["is_eye"],
            skin=_dense(assets["skin_ids"], assets["skin_weights"]),
            parents=assets["parents"].astype(int),
            masks={
                name.removeprefix("mask_"): assets[name].astype(np.float32) / 255
                for name in assets
                if name.startswith("mask_")
            },
            garments={name: _read_garment(assets, name) for name in ("skirt", "hair")},
        )


def _read_garment(assets, name: str) -> dict[str, np.ndarray]:
    return {
        "faces": assets[f"{name}_faces"].astype(np.int32),
        "face_part": assets[f"{name}_face_part"],
        "anchor_ids": assets[f"{name}_anchor_ids"].astype(int),
        "anchor_weights": assets[f"{name}_anchor_weights"].astype(np.float32),
        "offset": assets[f"{name}_offset"],
        "skin": _dense(assets[f"{name}_skin_ids"], assets[f"{name}_skin_weights"]),
    }


def pose_joints(
    joints: np.ndarray, pose: np.ndarray, pelvis: np.ndarray, parents: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Forward kinematics: global rotations [24, 3, 3] and positions [24, 3], float64.

    Of the T-posed joints [24, 3], axis-angle local rotations [24, 3], and the position
    of the pelvis joint [3].
    """
    local = Rotation.from_rotvec(pose).as_matrix()
    rotations = np.empty((NUM_JOINTS, 3, 3))
    positions = np.empty((NUM_JOINTS, 3))
    rotations[0], positions[0] = local[0], pelvis
    for joint in range(1, NUM_JOINTS):
        parent = parents[joint]
        rotations[joint] = rotations[parent] @ local[joint]
        bone = joints[joint] - joints[parent]
        positions[joint] = positions[parent] + rotations[parent] @ bone
    return rotations, positions


def skin_vertices(
    vertices: np.ndarray,
    joints: np.ndarray,
    skin: np.ndarray,
    rotations: np.ndarray,
    positions: np.ndarray,
) -> np.ndarray:
    """Linear blend skinning: v' = sum_j w_j (G_j (v - J_j) + P_j), float32 [V, 3]."""
    offsets = positions - np.einsum("jab,jb->ja", rotations, joints)
    transforms = np.concatenate([rotations.reshape(-1, 9), offsets], axis=1)
    blended = skin @ transforms.astype(np.float32)  # [V, 12]
    turned = np.einsum("vab,vb->va", blended[:, :9].reshape(-1, 3, 3), vertices)
    return turned + blended[:, 9:]


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals [V, 3]: area-weighted means over the faces around each vertex."""
    first, second, third = (vertices[faces[:, corner]] for corner in range(3))
    face_normals = np.cross(second - first, third - first)
    normals = np.empty_like(vertices)
    corners = faces.ravel(order="F")
    for axis in range(3):
        weights = np.tile(face_normals[:, axis], 3)
        normals[:, axis] = np.bincount(corners, weights, minlength=len(vertices))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
