"""One clip: a person moving in front of a still background, with all its labels.

Everything is drawn from `numpy.random.default_rng([seed, split, index])`, so a clip
depends neither on the other clips nor on the process that makes it.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from keras_seg.synthetic import body, camera, defect, look, motion, raster, scene, shade

SPLITS: tuple[str, ...] = ("train", "val", "test")
FAR = np.float32(1e10)  # depth of the background, as in SURREAL
STRIDE = 50  # SURREAL's run0: clips that overlap by 50 %
CLIP_SECONDS = 100 / 30  # SURREAL's clips: 100 frames at 30 a second
MAX_STEP = 0.2  # seconds between two frames, for clips of few frames
MAX_DRIFT = np.array([1.5, 0.9])  # metres from the first frame: depth, sideways

# The motions of each split and their weights. Splits share no motion, and upright
# motions prevail, as in SURREAL.
MOTIONS = {
    "train": {
        **{"walk": 3, "turn_left0": 2, "turn_right0": 2, "run": 2, "jump": 2},
        **{"kick": 2, "dance_a": 3, "spin": 2, "cartwheel": 1, "crawl": 1},
        **{"getup_faceup": 1.5, "roll": 1, "backflip": 1},
    },
    "val": {"turn_left1": 3, "punch": 2, "dance_b": 3},
    "test": {
        **{"0walk_forward": 3, "turn_right1": 3, "spinkick": 1.5, "getup_facedown": 1}
    },
}


@dataclass(frozen=True)
class Clip:
    """T frames of 240 x 320 and their labels; units and axes as in SURREAL."""

    sequence: str  # the clip's name
    rgb: np.ndarray  # uint8 [T, 240, 320, 3]
    segm: np.ndarray  # uint8 [T, 240, 320], 0..24, with the head-label defect
    segm_clean: np.ndarray  # the same without it
    depth: np.ndarray | None  # float32 [T, 240, 320] metres, FAR in the background
    joints_3d: np.ndarray  # float32 [3, 24, T], world metres
    joints_2d: np.ndarray  # float32 [2, 24, T], whole pixels
    pose: np.ndarray  # float32 [72, T]
    shape: np.ndarray  # float32 [10]
    light: np.ndarray  # float32 [9]
    cam_loc: np.ndarray  # float32 [3]
    zrot: float  # radians
    gender: int  # 0 female, 1 male
    background: str  # in words
    cloth: str


def draw_motion(
    rng: np.random.Generator, split: str, frames: int
) -> tuple[str, np.ndarray, np.ndarray]:
    """A varied motion of the split: (name, pose [T, 24, 3], root [T, 3])."""
    names = list(MOTIONS[split])
    weights = np.array(list(MOTIONS[split].values()), float)
    name, arms = rng.choice(names, size=2, p=weights / weights.sum())
    clips = motion.load_all()
    step = np.clip(CLIP_SECONDS / frames, 1 / motion.FPS, MAX_STEP)
    steps = np.arange(frames) * step * rng.uniform(0.8, 1.25)
    chosen = clips[str(name)]
    pose, root = motion.sample(chosen, rng.uniform(0, chosen.seconds) + steps)
    if rng.random() < 0.3:  # the arms of another motion
        other = clips[str(arms)]
        moved, _ = motion.sample(other, rng.uniform(0, other.seconds) + steps)
        pose[:, motion.ARM_JOINTS] = moved[:, motion.ARM_JOINTS]
    pose = motion.vary(rng, pose)
    if rng.random() < 0.5:
        pose, root = motion.mirrored(pose, root)
    return str(name), pose, root


def _limit_drift(path: np.ndarray) -> np.ndarray:
    """A path [T, 3] in world axes, scaled to stay within MAX_DRIFT of its start."""
    drift = path - path[0]
    for axis, limit in zip((0, 2), MAX_DRIFT):
        drift[:, axis] *= min(1.0, limit / max(np.abs(drift[:, axis]).max(), 1e-9))
    return path[0] + drift


def make_clip(
    seed: int, split: str, index: int, frames: int, with_depth: bool = False
) -> Clip:
    """Clip number `index`, from 0, of one of SPLITS."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    gender = int(rng.integers(2))
    person = look.Person(rng, body.SEXES[gender])
    name, pose, root = draw_motion(rng, split, frames)
    zrot = float(np.float32(rng.uniform(0, 2 * np.pi)))
    distance = max(5.0, rng.normal(8, 1))
    cam_loc = [distance, rng.uniform(-0.15, 0.15), rng.uniform(-0.25, 0.25)]
    cam_loc = np.array(cam_loc, np.float32)
    light = shade.draw_light(rng)

    # Body axes to world axes, the pelvis of the first frame at the origin.
    turn = camera.world_rotation(zrot)
    pelvis = motion.pelvis_path(pose, root, person.joints)
    world_pelvis = _limit_drift((pelvis - pelvis[0]) @ turn.T)
    floor_y = float(pelvis[0, 1])
    background = scene.draw(rng, cam_loc, floor_y)

    painter = Painter(rng, person, light, cam_loc, background, floor_y)
    defective_parts = person.face_part.copy()
    defective_parts[: len(person.template.faces)] = defect.defective_parts(
        person.template
    )
    segm, clean, depth, rgb, joints = [], [], [], [], []
    for t in range(frames):
        rotations, positions = body.pose_joints(
            person.joints, pose[t], np.zeros(3), person.template.parents
        )
        vertices = body.skin_vertices(
            person.vertices, person.joints, person.skin, rotations, positions
        )
        vertices = (vertices @ turn.T + world_pelvis[t]).astype(np.float32)
        joints.append(positions @ turn.T + world_pelvis[t])
        picture, seen = painter.paint(vertices)
        rgb.append(picture)
        clean.append(_image(seen, person.face_part[seen.face], np.uint8(0)))
        segm.append(_image(seen, defective_parts[seen.face], np.uint8(0)))
        if with_depth:
            depth.append(_image(seen, seen.depth, FAR))

    joints_3d = np.moveaxis(np.array(joints, np.float32), 0, -1).swapaxes(0, 1)
    return Clip(
        sequence=f"{split}{index:05d}_{name}",
        rgb=np.array(rgb),
        segm=np.array(segm),
        segm_clean=np.array(clean),
        depth=np.array(depth) if with_depth else None,
        joints_3d=joints_3d,
        joints_2d=camera.joints_2d(joints_3d, cam_loc),
        pose=pose.reshape(frames, 72).T.astype(np.float32),
        shape=person.shape.astype(np.float32),
        light=light,
        cam_loc=cam_loc,
        zrot=zrot,
        gender=gender,
        background=background.description,
        cloth=person.description,
    )


def _image(seen: raster.Fragments, values: np.ndarray, empty) -> np.ndarray:
    image = np.full((camera.HEIGHT, camera.WIDTH), empty)
    image[seen.rows, seen.columns] = values
    return image


# Colour is sampled at pixel centres and half-way between them; a pixel is the mean of
# its own sample and the eight around it, weighted by this filter, so edges are smooth.
# Labels and depth use the sample at the centre alone.
SAMPLES = 2
TENT = np.array([0.25, 0.5, 0.25], np.float32)
GRID = (SAMPLES * camera.HEIGHT + 1, SAMPLES * camera.WIDTH + 1)


class Painter:
    """Draws one person, frame by frame, over a background."""

    def __init__(self, rng, person: look.Person, light, cam_loc, background, floor_y):
        self.person, self.light, self.cam_loc = person, light, cam_loc
        self.background, self.floor_y = background, floor_y
        self.film = Film(rng)
        self.empty = self.film.expose(background.linear)

    def paint(self, vertices: np.ndarray) -> tuple[np.ndarray, raster.Fragments]:
        """RGB uint8 [240, 320, 3] and the fragments at the pixel centres."""
        person = self.person
        uvz = camera.project(vertices, self.cam_loc)
        samples = raster.rasterise(uvz, person.faces, GRID, (0.0, 0.0), SAMPLES)
        centres = np.flatnonzero(samples.rows % SAMPLES & samples.columns % SAMPLES)
        seen = raster.Fragments(
            rows=samples.rows[centres] // SAMPLES,
            columns=samples.columns[centres] // SAMPLES,
            face=samples.face[centres],
            depth=samples.depth[centres],
            weights=samples.weights[centres],
        )
        if not len(samples.face):
            return self.film.develop(self.empty), seen
        normals = body.vertex_normals(vertices, person.faces)
        facing = samples.interpolate(person.faces, normals)
        facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-6)
        colour = person.albedo(samples)
        colour *= shade.irradiance(facing, self.light)[:, None]

        # Only the window of the sample grid that the person covers. Its first row and
        # column are even, so that pixel centres stay at odd rows and columns.
        top = max(samples.rows.min() // 2 * 2 - 2, 0)
        left = max(samples.columns.min() // 2 * 2 - 2, 0)
        bottom = min(samples.rows.max() // 2 * 2 + 3, GRID[0])
        right = min(samples.columns.max() // 2 * 2 + 3, GRID[1])
        layer = np.zeros((bottom - top, right - left, 4), np.float32)
        rows, columns = samples.rows - top, samples.columns - left
        layer[rows, columns, 3] = 1
        depth = np.zeros(layer.shape[:2], np.float32)
        depth[rows, columns] = samples.depth
        colour *= _occlusion(depth, layer[..., 3])[rows, columns][:, None]
        layer[rows, columns, :3] = colour
        layer = cv2.sepFilter2D(layer, -1, TENT, TENT, borderType=cv2.BORDER_REPLICATE)
        layer = layer[1::2, 1::2]
        picture = self.background.linear.copy()
        if self.background.ground is not None:
            picture *= self._shadow(vertices)[..., None]
        window = np.s_[
            top // 2 : top // 2 + layer.shape[0], left // 2 : left // 2 + layer.shape[1]
        ]
        picture[window] *= 1 - layer[..., 3:]
        picture[window] += layer[..., :3]
        return self.film.develop(self.film.expose(picture)), seen

    def _shadow(self, vertices: np.ndarray) -> np.ndarray:
        """[240, 320]: the share of the light that reaches the floor.

        Vertices are projected on the floor away from the main direction of the light;
        the lowest ones also straight down.
        """
        light = self.light
        toward = np.array([light[3], min(light[1], -1e-3), light[2]], float)
        slope = toward[[0, 2]] / -toward[1]
        slope *= min(1.0, 1.2 / max(np.hypot(*slope), 1e-6))
        height = np.maximum(self.floor_y - vertices[:, 1], 0)
        cast = vertices.astype(float)
        cast[:, [0, 2]] -= slope * height[:, None]
        cast[:, 1] = self.floor_y
        under = cast[height < 0.12]
        strength = 0.15 + 0.4 * min(1.0, np.linalg.norm(toward) / light[0])
        shadow = strength * self._soft_spot(cast, 1.6)
        contact = 0.4 * self._soft_spot(under, 1)
        return 1 - self.background.ground * np.maximum(shadow, contact)

    def _soft_spot(self, points: np.ndarray, width: float) -> np.ndarray:
        """World points [N, 3] as a blurred spot, 0..1 [240, 320]."""
        uvz = camera.project(points, self.cam_loc)
        u, v = uvz[:, 0].astype(int), uvz[:, 1].astype(int)
        seen = (uvz[:, 2] > 0) & (u >= 0) & (v >= 0)
        seen &= (u < camera.WIDTH) & (v < camera.HEIGHT)
        index = v[seen] * camera.WIDTH + u[seen]
        count = np.bincount(index, minlength=camera.WIDTH * camera.HEIGHT)
        spot = (count > 0).astype(np.float32).reshape(camera.HEIGHT, camera.WIDTH)
        return cv2.GaussianBlur(spot, (0, 0), width)


def _occlusion(depth: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """A factor that darkens what is behind its surroundings: armpits, under chins.

    depth: float32 [h, w] metres, 0 where nobody is; covered: 1 or 0.
    """
    width = 5.0  # samples
    around = cv2.GaussianBlur(depth, (0, 0), width)
    share = cv2.GaussianBlur(covered, (0, 0), width)
    behind = depth - around / np.maximum(share, 1e-6)
    return 1 - 0.4 * np.clip(behind / 0.08, 0, 1)


class Film:
    """Exposure, colour cast, blur and grain, the same throughout a clip."""

    def __init__(self, rng: np.random.Generator):
        self.exposure = np.exp(rng.normal(0, 0.12))
        self.cast = np.exp(rng.normal(0, 0.04, 3)).astype(np.float32)
        self.blur = max(0.0, rng.normal(0.1, 0.25))  # pixels
        self.grain = max(0.0, rng.normal(1.0, 1.2))  # levels of 255
        self.rng = rng

    def expose(self, linear: np.ndarray) -> np.ndarray:
        """Linear light [240, 320, 3] to sRGB uint8 before grain."""
        image = linear * (self.exposure * self.cast)
        if self.blur > 0.2:
            image = cv2.GaussianBlur(image, (0, 0), self.blur)
        return shade.film_to_bytes(image)

    def develop(self, image: np.ndarray) -> np.ndarray:
        """Adds grain to a frame, uint8 [240, 320, 3]."""
        if self.grain < 0.3:
            return image
        noise = self.rng.standard_normal(image.shape, np.float32) * self.grain
        return np.clip(image + noise + 0.5, 0, 255).astype(np.uint8)
