"""What a person looks like: skin, face, hair and clothes, drawn from a generator.

Clothes are not bodies of their own: they are painted on the body, as in SURREAL, and
pushed outwards a little, which gives sleeves, trouser legs, soles and hair their
volume. Only skirts, long hair, buns, tails and brims are meshes beside the body. The
part of a face never changes: a sleeve is labelled as the arm in it.

Everything is a function of the place on the T-posed body, so that a pattern stays
where it is while the body moves, and nothing has a seam.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from keras_seg.synthetic import body, fabric, noise, photos, shade
from keras_seg.synthetic.raster import Fragments

NUM_PARTS = body.NUM_PARTS


def _table(*parts: int) -> np.ndarray:
    table = np.zeros(NUM_PARTS + 1, bool)
    table[list(parts)] = True
    return table


# Which parts a garment can reach; index = part id.
IS_TRUNK = _table(1, 4, 7, 10, 13, 14, 15)
IS_LEG = _table(1, 2, 3, 5, 6, 8, 9, 11, 12)
IS_FOOT = _table(8, 9, 11, 12)
IS_ARM = _table(17, 18, 19, 20, 21, 22, 23, 24)
IS_HAND = _table(21, 22, 23, 24)
IS_HEAD = _table(16)

BODY, SKIRT, HAIR, HAT = range(4)  # what a face belongs to

# sRGB, light to dark; tones in between are mixed.
SKIN_RAMP = (
    np.array(
        [
            (246, 214, 194),
            (231, 184, 155),
            (201, 147, 110),
            (148, 98, 66),
            (92, 58, 40),
            (62, 40, 30),
        ]
    )
    / 255
)
HAIR_COLOURS = (
    np.array(
        [
            (22, 18, 17),
            (44, 30, 23),
            (76, 50, 34),
            (112, 76, 46),
            (168, 128, 78),
            (206, 172, 116),
            (124, 56, 30),
            (146, 142, 138),
            (208, 204, 198),
        ]
    )
    / 255
)
HAIR_SHARES = (0.25, 0.22, 0.16, 0.1, 0.08, 0.05, 0.05, 0.06, 0.03)


@dataclass(frozen=True)
class Landmarks:
    """Heights and places on a T-posed body, metres in body axes."""

    hip_y: float
    knee_y: float
    ankle_y: float
    floor_y: float
    waist_y: float
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
    eye: np.ndarray  # the left one's middle
    mouth: np.ndarray
    top_y: float
    skull: np.ndarray  # the middle of the head

    @classmethod
    def of(cls, template: body.Template, vertices, joints) -> "Landmarks":
        eyes = vertices[np.unique(template.faces[template.is_eye])]
        lips = vertices[template.masks["lips"] > 0.5]
        head = vertices[template.skin[:, body.HEAD] > 0.5]
        hip, knee = joints[body.LEFT_HIP], joints[body.LEFT_KNEE]
        shoulder, pelvis = joints[body.LEFT_SHOULDER], joints[body.PELVIS]
        return cls(
            hip_y=hip[1],
            knee_y=knee[1],
            ankle_y=joints[body.LEFT_ANKLE, 1],
            floor_y=vertices[:, 1].min(),
            waist_y=pelvis[1] + 0.05,
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


@dataclass(frozen=True)
class Place:
    """Points on the T-posed body: position [N, 3], part [N], garment mesh [N]."""

    position: np.ndarray
    part: np.ndarray
    mesh: np.ndarray

    @property
    def x(self):
        return self.position[:, 0]

    @property
    def y(self):
        return self.position[:, 1]

    @property
    def z(self):
        return self.position[:, 2]


def _ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """0 outside, rising smoothly to 1 at `width` metres inside."""
    share = np.clip(distance / width, 0, 1)
    return share * share * (3 - 2 * share)


@dataclass
class Cloth:
    """A tile of cloth with creases, and how it lies on the body."""

    tile: np.ndarray
    folds: np.ndarray
    turn: bool = False  # pattern turned by 90 degrees

    @classmethod
    def draw(cls, rng: np.random.Generator, kind: str = "any") -> "Cloth":
        tile, folds = fabric.draw_tile(rng, kind), fabric.draw_folds(rng)
        return cls(tile, folds, turn=rng.random() < 0.15)

    def at(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """sRGB [N, 3] at metres along and across."""
        texels = fabric.TILE / fabric.TILE_M
        column = (u * texels).astype(int) % fabric.TILE
        row = (v * texels).astype(int) % fabric.TILE
        folds = self.folds[row, column]
        colour = self.tile[column, row] if self.turn else self.tile[row, column]
        return colour * folds[:, None]


@dataclass
class Top:
    """A garment of the trunk: shirt, T-shirt, pullover, jacket, dress top.

    Lengths in metres from the landmark named; sleeve in limbs: 0 shoulder, 1 elbow,
    2 wrist, below 0 none.
    """

    cloth: Cloth
    neckline: str  # crew, v, scoop, turtle, straps, boat
    depth: float  # of the neckline
    sleeve: float
    hem: float  # above the hip joint
    ease: float  # how far it stands off the body
    opening: float = -1.0  # half width of an open front; below 0: closed
    sleeves: Cloth | None = None
    trim: np.ndarray | None = None  # colour of cuffs, hem and collar
    emblem: np.ndarray | None = None  # RGBA picture on the chest
    buttons: np.ndarray | None = None  # colour of a button line


@dataclass
class Bottom:
    """Trousers, shorts or a skirt. length: 0 hip, 1 knee, 2 ankle."""

    cloth: Cloth
    length: float
    rise: float  # waistband above the hip joint
    ease: float
    flare: float  # extra stand-off at the hem
    skirt: bool = False
    belt: np.ndarray | None = None
    side_stripe: np.ndarray | None = None


@dataclass
class Shoes:
    colour: np.ndarray
    sole: np.ndarray
    top: float  # above the ankle joint
    sock: float  # top of the sock above the ankle joint; below 0.0: none
    sock_colour: np.ndarray
    bare: bool = False


@dataclass
class Hair:
    """style: bald, shaved, short, medium, afro, long, bun, tail, cap, beanie, hat."""

    style: str
    colour: np.ndarray
    volume: float
    front: float  # forehead line above the eyes
    length_y: float = 0.0  # lowest point of long hair
    hat: np.ndarray = field(default_factory=lambda: np.zeros(3))
    beard: float = 0.0  # 0..1
    streaks: np.ndarray = field(default_factory=lambda: np.ones((1, 1)))


class Person:
    """One person: a shaped, dressed body in T-pose, and its colours.

    Attributes:
        template, shape [10], joints [24, 3].
        vertices: float32 [V', 3]; the body's come first, then those of skirt, hair
            and hat. `skin` [V', 24], `faces` [F', 3] and `face_part` [F'] likewise.
        description: str, in a few words.
    """

    def __init__(self, rng: np.random.Generator, sex: str):
        self.sex = sex
        self.template = body.load(sex)
        self.shape = np.clip(rng.standard_normal(body.NUM_SHAPES), -2.5, 2.5)
        bare, self.joints = self.template.shaped(self.shape)
        self.marks = Landmarks.of(self.template, bare, self.joints)
        self._draw_colours(rng)
        self._draw_clothes(rng)
        self._draw_hair(rng)
        self._build_mesh(bare)

    # ---------------------------------------------------------------- what is worn

    def _draw_colours(self, rng):
        tone = rng.beta(1.0, 1.3) * (len(SKIN_RAMP) - 1)
        lower = min(int(tone), len(SKIN_RAMP) - 2)
        share = tone - lower
        skin = SKIN_RAMP[lower] * (1 - share) + SKIN_RAMP[lower + 1] * share
        self.skin_colour = np.clip(skin * rng.normal(1, 0.03, 3), 0, 1)
        self.skin_noise = noise.draw(rng, "rough")
        self.lips = self.skin_colour * [0.86, 0.62, 0.62]
        if self.sex == "female" and rng.random() < 0.4:
            self.lips = fabric.from_hsv(rng.uniform(-0.06, 0.02) % 1, 0.7, 0.6)
        iris = (
            (0.25, 0.16, 0.1),
            (0.32, 0.24, 0.14),
            (0.3, 0.42, 0.5),
            (0.3, 0.4, 0.3),
        )
        self.iris = np.array(iris[rng.choice(4, p=[0.5, 0.2, 0.2, 0.1])])
        self.glasses = rng.random() < 0.14
        self.glasses_dark = rng.random() < 0.5

    def _draw_clothes(self, rng):
        outfit = rng.choice(
            ["plain", "jacket", "dress", "sport", "swim", "overall"],
            p=[0.5, 0.22, 0.08 if self.sex == "female" else 0.0, 0.12, 0.05, 0.03]
            if self.sex == "female"
            else [0.55, 0.25, 0.0, 0.12, 0.05, 0.03],
        )
        self.outfit = str(outfit)
        self.bottom = self._draw_bottom(rng)
        self.tops = [self._draw_top(rng)]
        if outfit == "jacket":
            self.tops.append(self._draw_jacket(rng))
        elif outfit == "dress":
            top = self.tops[0]
            self.bottom.cloth, self.bottom.skirt = top.cloth, True
            self.bottom.length = rng.uniform(0.45, 1.7)
            self.bottom.belt = fabric.colour(rng) if rng.random() < 0.4 else None
            top.hem = self.bottom.rise - 0.03
        elif outfit == "sport":
            self.bottom.length = float(rng.choice([0.35, 0.55, 1.9]))
            self.bottom.side_stripe = fabric.colour(rng) if rng.random() < 0.6 else None
        elif outfit == "swim":
            self._draw_swimwear(rng)
        elif outfit == "overall":
            cloth = Cloth.draw(rng, "denim" if rng.random() < 0.6 else "quiet")
            self.bottom = Bottom(cloth, rng.choice([0.4, 1.9]), 0.1, 0.014, 0.006)
            bib = Top(cloth, "straps", 0.1, -0.6, 0.06, 0.012)
            self.tops.append(bib)
        self.shoes = self._draw_shoes(rng)
        self.gloves = fabric.colour(rng) if rng.random() < 0.04 else None

    def _draw_top(self, rng) -> Top:
        sleeve = rng.choice(
            [-0.3, 0.15, 0.45, 0.6, 1.3, 1.92], p=[0.1, 0.06, 0.3, 0.12, 0.08, 0.34]
        )
        neckline = rng.choice(
            ["crew", "v", "scoop", "turtle", "straps", "boat"],
            p=[0.42, 0.18, 0.14, 0.08, 0.06, 0.12],
        )
        if neckline == "straps":
            sleeve = -0.3
        cloth = Cloth.draw(rng)
        top = Top(
            cloth=cloth,
            neckline=str(neckline),
            depth=rng.uniform(0.03, 0.12),
            sleeve=float(sleeve) + rng.normal(0, 0.04),
            hem=rng.choice([rng.uniform(-0.1, 0.02), rng.uniform(0.03, 0.12)]),
            ease=rng.uniform(0.003, 0.014),
        )
        if rng.random() < 0.2:
            top.sleeves = Cloth.draw(rng, "quiet")
        if rng.random() < 0.25:
            top.trim = fabric.colour(rng)
        if rng.random() < 0.22:
            top.emblem = _draw_emblem(rng)
        elif rng.random() < 0.2:
            top.buttons = fabric.colour(rng)
        return top

    def _draw_jacket(self, rng) -> Top:
        vest = rng.random() < 0.2
        return Top(
            cloth=Cloth.draw(rng, "quiet" if rng.random() < 0.75 else "any"),
            neckline=str(rng.choice(["crew", "v", "turtle"], p=[0.3, 0.5, 0.2])),
            depth=rng.uniform(0.03, 0.2),
            sleeve=-0.25 if vest else 1.9 + rng.normal(0, 0.04),
            hem=rng.choice([rng.uniform(-0.12, 0.06), rng.uniform(-0.35, -0.12)]),
            ease=rng.uniform(0.014, 0.026),
            opening=rng.uniform(0.01, 0.07) if rng.random() < 0.7 else -1.0,
            trim=fabric.colour(rng) if rng.random() < 0.3 else None,
            buttons=fabric.colour(rng) if rng.random() < 0.4 else None,
        )

    def _draw_bottom(self, rng) -> Bottom:
        skirt = self.sex == "female" and rng.random() < 0.22
        if skirt:
            length = rng.uniform(0.35, 1.5)
        else:
            length = rng.choice(
                [0.25, 0.5, 0.85, 1.5, 1.95], p=[0.06, 0.14, 0.12, 0.06, 0.62]
            ) + rng.normal(0, 0.04)
        tight = rng.random() < (0.45 if self.sex == "female" else 0.15)
        return Bottom(
            cloth=Cloth.draw(
                rng, str(rng.choice(["denim", "quiet", "any"], p=[0.35, 0.45, 0.2]))
            ),
            length=float(length),
            rise=rng.uniform(0.05, 0.13),
            ease=0.003 if tight else rng.uniform(0.007, 0.02),
            flare=0.0 if tight else rng.choice([0.0, 0.01, 0.025], p=[0.6, 0.3, 0.1]),
            skirt=skirt,
            belt=fabric.colour(rng) * 0.6 if rng.random() < 0.3 else None,
            side_stripe=fabric.colour(rng) if rng.random() < 0.08 else None,
        )

    def _draw_swimwear(self, rng):
        self.bottom.skirt = False
        self.bottom.length = float(rng.choice([0.05, 0.3, 0.6]))
        self.bottom.rise, self.bottom.belt = 0.05, None
        self.tops = []
        if self.sex == "female":
            self.bottom.length = 0.02
            top = Top(Cloth.draw(rng), "straps", 0.1, -0.5, self.bottom.rise, 0.003)
            if rng.random() < 0.5:  # two pieces
                top.hem = self.marks.chest_y - self.marks.hip_y - 0.06
            self.tops = [top]

    def _draw_shoes(self, rng) -> Shoes:
        kind = rng.choice(
            ["bare", "low", "sneaker", "boot", "high"], p=[0.1, 0.3, 0.38, 0.14, 0.08]
        )
        if self.outfit == "swim":
            kind = "bare"
        top = {"bare": -1, "low": -0.015, "sneaker": 0.02, "boot": 0.12, "high": 0.28}
        dark = rng.random() < 0.55
        colour = fabric.colour(rng) * (0.5 if dark else 1.0)
        sole = fabric.colour(rng) if rng.random() < 0.3 else np.full(3, 0.88)
        return Shoes(
            colour=colour,
            sole=colour * 0.6 if rng.random() < 0.5 else sole,
            top=top[kind] + rng.normal(0, 0.01),
            sock=rng.choice([-1.0, 0.05, 0.12, 0.3], p=[0.4, 0.25, 0.25, 0.1]),
            sock_colour=np.full(3, 0.9) if rng.random() < 0.4 else fabric.colour(rng),
            bare=bool(kind == "bare"),
        )

    def _draw_hair(self, rng):
        styles = ["bald", "shaved", "short", "medium", "afro", "long", "bun", "tail"]
        styles += ["cap", "beanie", "hat"]
        shares = {
            "female": [0.0, 0.01, 0.1, 0.18, 0.06, 0.3, 0.1, 0.13, 0.04, 0.04, 0.04],
            "male": [0.06, 0.13, 0.41, 0.14, 0.05, 0.03, 0.01, 0.02, 0.08, 0.05, 0.02],
        }[self.sex]
        style = str(rng.choice(styles, p=shares))
        colour = HAIR_COLOURS[rng.choice(len(HAIR_COLOURS), p=HAIR_SHARES)]
        if rng.random() < 0.03:
            colour = fabric.from_hsv(rng.random(), 0.7, 0.7)
        volume = {
            "short": rng.uniform(0.006, 0.014),
            "medium": rng.uniform(0.014, 0.03),
            "afro": rng.uniform(0.035, 0.065),
            "long": 0.008,
            "bun": 0.006,
            "tail": 0.006,
        }.get(style, 0.003)
        self.hair = Hair(
            style=style,
            colour=np.clip(colour * rng.uniform(0.85, 1.15), 0, 1),
            volume=volume,
            front=rng.uniform(0.055, 0.085),
            length_y=self.marks.mouth[1] - rng.uniform(0.02, 0.26),
            hat=fabric.colour(rng),
            beard=(
                rng.uniform(0.25, 0.95)
                if self.sex == "male" and rng.random() < 0.35
                else 0.0
            ),
            streaks=noise.draw(rng, "streak").T,
        )
        self.hat_tilt = rng.uniform(-0.3, 0.15)
        self.cap_backwards = rng.random() < 0.25

    @property
    def description(self) -> str:
        bottom = "skirt" if self.bottom.skirt else "trousers"
        if not self.bottom.skirt and self.bottom.length < 1.2:
            bottom = "shorts"
        return f"{self.sex} {self.outfit} {bottom} hair-{self.hair.style}"

    # ------------------------------------------------------------------- the mesh

    def _build_mesh(self, bare: np.ndarray):
        template = self.template
        vertices, skins = [bare], [template.skin]
        faces, parts, meshes = [template.faces], [template.face_part], [BODY]
        for mesh, extra in self._extras(bare):
            points, skin, extra_faces, extra_parts = extra
            faces.append(extra_faces + sum(len(v) for v in vertices))
            vertices.append(points)
            skins.append(skin)
            parts.append(extra_parts)
            meshes.append(mesh)
        self.rest = np.concatenate(vertices).astype(np.float32)
        self.skin = np.concatenate(skins).astype(np.float32)
        self.faces = np.concatenate(faces).astype(np.int32)
        self.face_part = np.concatenate(parts).astype(np.uint8)
        self.face_mesh = np.repeat(meshes, [len(f) for f in faces]).astype(np.uint8)
        self.face_is_eye = np.zeros(len(self.faces), bool)
        self.face_is_eye[: len(template.is_eye)] = template.is_eye
        self.masks = {
            name: np.concatenate(
                [mask, np.zeros(len(self.rest) - len(mask), np.float32)]
            )
            for name, mask in template.masks.items()
        }
        part = (template.skin.argmax(axis=1) + 1).astype(np.uint8)
        place = Place(bare, part, np.zeros(len(bare), np.uint8))
        normals = body.vertex_normals(bare, template.faces)
        self.vertices = self.rest.copy()
        self.vertices[: len(bare)] += self._displacement(place, normals)

    def _extras(self, bare):
        """The meshes beside the body: (id, (vertices, skin, faces, parts))."""
        marks, hair = self.marks, self.hair
        if self.bottom.skirt:
            points, skin, faces, parts = self.template.garment("skirt", bare)
            parts = self._skirt_parts(points, faces)
            hem = self._leg_y(self.bottom.length)
            waist = marks.hip_y + self.bottom.rise
            seen = (points[faces, 1] > hem).any(1) & (points[faces, 1] < waist).all(1)
            points = points.copy()
            down = np.clip((waist - points[:, 1]) / 0.5, 0, 1)
            out = 1 + (0.02 + 4 * self.bottom.flare) * down
            points[:, 0] *= out
            points[:, 2] = marks.trunk_z + (points[:, 2] - marks.trunk_z) * out
            points[:, 1] = np.maximum(points[:, 1], hem)
            yield SKIRT, (points, skin, faces[seen], parts[seen])
        if hair.style == "long":
            points, skin, faces, parts = self.template.garment("hair", bare)
            seen = (points[faces, 1] > hair.length_y).any(axis=1)
            middle = points[faces].mean(axis=1)  # no curtain before the face
            seen &= (middle[:, 2] < marks.eye[2] - 0.035) | (
                middle[:, 1] > marks.eye[1] + hair.front - 0.01
            )
            points = points.copy()
            points[:, 1] = np.maximum(points[:, 1], hair.length_y)
            yield HAIR, (points, skin, faces[seen], parts[seen])
        skull, eye = marks.skull, marks.eye
        if hair.style == "bun":
            centre = np.array([0, marks.top_y - 0.03, skull[2] - 0.075])
            yield HAIR, _ellipsoid(centre, np.array([0.042, 0.04, 0.042]))
        if hair.style == "tail":
            root = np.array([0, eye[1] + 0.03, skull[2] - 0.1])
            yield HAIR, _ellipsoid(root - [0, 0.06, 0], np.array([0.03, 0.11, 0.028]))
        if hair.style in ("cap", "hat"):
            level = eye[1] + 0.052
            yield HAT, _brim(skull, level, hair.style == "hat", self.cap_backwards)

    def _skirt_parts(self, points, faces) -> np.ndarray:
        """uint8 [M]: hips, thigh or shin by height, the leg by side.

        The mesh is one of quads, two triangles after each other; a quad has one part,
        so that the borders are straight.
        """
        centre = points[faces].mean(axis=1).reshape(-1, 2, 3).mean(axis=1)
        x, y = centre[:, 0], centre[:, 1]
        right = (x < 0).astype(int)
        parts = np.where(y > self.marks.knee_y, 2, 5) + right
        parts = np.where(y > self.marks.hip_y - 0.05, 1, parts)
        return np.repeat(parts, 2).astype(np.uint8)

    def _leg_y(self, length: float) -> float:
        """The height of a place on the leg: 0 hip, 1 knee, 2 ankle."""
        marks = self.marks
        return float(
            np.interp(length, [0, 1, 2], [marks.hip_y, marks.knee_y, marks.ankle_y])
        )

    def _displacement(self, place: Place, normals: np.ndarray) -> np.ndarray:
        """How far clothes and hair push the body's vertices outwards, [V, 3]."""
        out = np.zeros(len(normals), np.float32)
        bottom = self.bottom
        if bottom.length > 0.1:
            inside = self._bottom_field(place)
            hem = self._leg_y(bottom.length)
            near_hem = np.clip(1 - (place.y - hem) / 0.3, 0, 1)
            stand = bottom.ease + bottom.flare * near_hem
            if bottom.skirt:
                stand = 0.002
            out = np.maximum(out, stand * _ramp(inside, 0.015))
        for top in self.tops:
            stand = top.ease * np.where(IS_ARM[place.part], 0.8, 1.0)
            out = np.maximum(out, stand * _ramp(self._top_field(top, place), 0.015))
        if not self.shoes.bare:
            inside = self._shoe_field(place)
            out = np.maximum(out, 0.006 * _ramp(inside, 0.01))
        hair, marks = self.hair, self.marks
        inside = self._hair_field(place)
        volume = np.full(len(out), hair.volume, np.float32)
        volume *= 0.6 + 0.4 * np.clip((place.y - marks.eye[1]) / 0.08, 0, 1)
        if hair.style in ("cap", "beanie", "hat"):
            inside = np.maximum(inside * 0, self._hat_field(place))
            volume = np.full(len(out), 0.014, np.float32)
        if hair.style not in ("bald", "shaved"):
            out = np.maximum(out, volume * _ramp(inside, 0.03))
        push = normals * out[:, None]
        if hair.style == "afro":  # round: away from the middle of the head
            away = place.position - marks.skull
            away /= np.linalg.norm(away, axis=1, keepdims=True)
            round_head = (inside > 0) & IS_HEAD[place.part]
            push[round_head] = (away * out[:, None])[round_head]
        if not self.shoes.bare:  # a flat sole
            sole = IS_FOOT[place.part] & (place.y < marks.floor_y + 0.02)
            push[sole, 1] -= 0.012
        return push

    # ----------------------------------------------- where each garment covers, metres

    def _top_field(self, top: Top, place: Place) -> np.ndarray:
        """Positive inside the garment, negative outside."""
        marks = self.marks
        x, y, z, part = np.abs(place.x), place.y, place.z, place.part
        trunk, arm = IS_TRUNK[part], IS_ARM[part]
        hem = y - (marks.hip_y + top.hem)
        hem = np.where(arm, 1.0, hem)
        # The base of the neck slopes down to the front.
        base = marks.neck_y - 0.02 - 0.55 * (z - marks.neck_z)
        in_front = np.clip((z - marks.neck_z) / 0.02, 0, 1)
        if top.neckline == "turtle":
            neck = base + 0.06 - y
        elif top.neckline == "v":
            cut = np.maximum(0, top.depth - 1.2 * x) * in_front
            neck = base + 0.005 - cut - y
        elif top.neckline == "scoop":
            cut = top.depth * np.maximum(0, 1 - (x / 0.09) ** 2) * in_front
            neck = base - 0.01 - cut - y
        elif top.neckline == "boat":
            neck = base - 0.02 - 0.03 * np.clip(1 - x / 0.12, 0, 1) - y
        elif top.neckline == "straps":
            strap = 0.016 - np.abs(x - 0.085)
            cut = marks.chest_y + 0.03 - 0.02 * in_front - y
            neck = np.maximum(cut, np.minimum(strap, base + 0.02 - y))
        else:
            neck = base - y
        neck = np.where(arm, 1.0, neck)
        if top.sleeve < 0:
            edge = marks.shoulder_x + 0.1 * top.sleeve + 0.012
            sleeve = np.where(arm, edge - x, 1.0)
            raised = trunk & (y > marks.arm_y - 0.06)
            sleeve = np.where(raised, np.minimum(sleeve, edge - x), sleeve)
        else:
            end = np.interp(
                top.sleeve, [0, 1, 2], [marks.shoulder_x, marks.elbow_x, marks.wrist_x]
            )
            sleeve = np.where(arm, end - x, 1.0)
        inside = np.minimum(np.minimum(hem, neck), sleeve)
        if top.opening >= 0:
            # The front falls open more towards the hem.
            width = top.opening * (1.3 - (y - marks.hip_y) / 0.7)
            open_front = (z > marks.trunk_z) & ~arm
            inside = np.where(open_front, np.minimum(inside, x - width), inside)
        legs = IS_LEG[part] & ~IS_FOOT[part]
        return np.where(trunk | arm | legs, inside, -1.0)

    def _bottom_field(self, place: Place) -> np.ndarray:
        marks, bottom = self.marks, self.bottom
        hem = self._leg_y(bottom.length)
        if bottom.length < 0.1:  # briefs: cut high at the side
            hem = marks.hip_y - 0.09 + 0.75 * np.maximum(np.abs(place.x) - 0.04, 0)
        waist = marks.hip_y + bottom.rise
        inside = np.minimum(place.y - hem, waist - place.y)
        reach = IS_LEG[place.part] | IS_TRUNK[place.part]
        if bottom.length < 1.9:
            reach &= ~IS_FOOT[place.part]
        return np.where(reach, inside, -1.0)

    def _shoe_field(self, place: Place) -> np.ndarray:
        reach = IS_FOOT[place.part] | (place.part == 5) | (place.part == 6)
        top = self.marks.ankle_y + self.shoes.top
        return np.where(reach, top - place.y, -1.0)

    def _hair_field(self, place: Place) -> np.ndarray:
        """Above the hairline: round the forehead, before the ears, down to the nape."""
        marks, hair = self.marks, self.hair
        back = place.z - marks.eye[2]
        line = marks.eye[1] + np.interp(
            back,
            [-0.2, -0.13, -0.105, -0.095, -0.075, -0.03, 0.03],
            [-0.085, -0.07, -0.02, -0.005, 0.02, hair.front - 0.01, hair.front],
        )
        reach = IS_HEAD[place.part] | (place.part == 13)
        return np.where(reach, place.y - line, -1.0)

    def _hat_field(self, place: Place) -> np.ndarray:
        back = place.z - self.marks.skull[2]
        line = self.marks.eye[1] + 0.045 + 0.2 * back
        if self.hair.style == "beanie":
            line = self.marks.eye[1] + 0.03 + 0.5 * back
        return np.where(IS_HEAD[place.part], place.y - line, -1.0)

    # ------------------------------------------------------------------- the colours

    def albedo(self, fragments: Fragments) -> np.ndarray:
        """Linear RGB float32 [N, 3] of what is seen."""
        place = Place(
            position=fragments.interpolate(self.faces, self.rest),
            part=self.face_part[fragments.face],
            mesh=self.face_mesh[fragments.face],
        )
        u, v = self._cloth_coordinates(place)
        colour = self._skin(place, u, v)
        self._paint_face(colour, place, fragments)
        on_body = place.mesh == BODY
        self._paint_feet(colour, place)
        self._paint_bottom(colour, place, u, v)
        for top in self.tops:
            self._paint_top(colour, place, top, u, v, on_body)
        if self.gloves is not None:
            colour[IS_HAND[place.part]] = self.gloves
        self._paint_hair(colour, place, fragments)
        return shade.to_linear(np.clip(colour, 0, 1))

    def _cloth_coordinates(self, place: Place):
        """Metres (along the girth, down or out along the limb) of each place."""
        marks, part = self.marks, place.part
        side = np.sign(place.x)
        arm, leg = IS_ARM[part], IS_LEG[part] & (part > 1) & (place.mesh != SKIRT)
        centre_x = np.where(leg, side * marks.leg_x, 0.0)
        angle = np.arctan2(place.x - centre_x, place.z - marks.trunk_z)
        girth = np.where(leg, 0.5, 1.0) / (2 * np.pi)
        u, v = angle * girth, -place.y
        around = np.arctan2(place.z - marks.arm_z, place.y - marks.arm_y)
        u = np.where(arm, around * 0.25 / (2 * np.pi), u)
        v = np.where(arm, np.abs(place.x), v)
        return u + 10.0, v + 10.0 + 0.137 * (side > 0) * (arm | leg)

    def _skin(self, place: Place, u, v):
        texels = noise.TILE / 0.2
        row, column = (v * texels).astype(int), (u * texels).astype(int)
        grain = self.skin_noise[row % noise.TILE, column % noise.TILE]
        colour = self.skin_colour * (1 + 0.025 * grain[:, None])
        # Blood near the surface: hands, feet, elbows and knees are redder.
        red = IS_HAND[place.part] | IS_FOOT[place.part]
        knee = np.abs(place.y - self.marks.knee_y) < 0.04
        elbow = np.abs(np.abs(place.x) - self.marks.elbow_x) < 0.03
        red = red | (knee & IS_LEG[place.part]) | (elbow & IS_ARM[place.part])
        colour[red] *= [1.0, 0.95, 0.93]
        return colour

    def _paint_face(self, colour, place: Place, fragments: Fragments):
        head = np.flatnonzero(IS_HEAD[place.part] & (place.mesh == BODY))
        if not len(head):
            return
        marks, eye = self.marks, self.marks.eye
        x, y, z = np.abs(place.x[head]), place.y[head], place.z[head]

        def mask(name):
            return self._mask(name, fragments)[head, None]

        face = colour[head]
        # Cheeks and nose are redder, eye sockets darker.
        warm = np.exp(-(((x - 0.035) / 0.02) ** 2) - ((y - eye[1] + 0.04) / 0.02) ** 2)
        face *= 1 - warm[:, None] * np.array([0.0, 0.08, 0.08])
        socket = np.exp(
            -(((x - eye[0]) / 0.022) ** 2) - ((y - eye[1] - 0.004) / 0.013) ** 2
        )
        face *= 1 - 0.16 * socket[:, None]
        if self.hair.beard:
            jaw = np.clip((marks.mouth[1] + 0.015 - y) / 0.02, 0, 1)
            jaw *= np.clip((z - marks.eye[2] + 0.075) / 0.02, 0, 1)
            chin_line = np.clip((y - marks.mouth[1] + 0.075) / 0.02, 0, 1)
            amount = (0.85 * self.hair.beard * jaw * chin_line)[:, None]
            amount *= 1 - mask("lips")
            face = face * (1 - amount) + self.hair.colour * 0.9 * amount
        inner = mask("lips")
        face = face * (1 - inner) + self.lips * inner
        face *= 1 - 0.7 * mask("inside_mouth")
        face *= 1 - 0.55 * mask("eyelids")
        arch = eye[1] + 0.021 + 0.1 * (0.02 - np.abs(x - eye[0]))
        brow = (np.abs(y - arch) < 0.0038) & (np.abs(x - eye[0]) < 0.021)
        brow &= z > eye[2] - 0.03
        face[brow] = 0.25 * face[brow] + 0.75 * self.hair.colour * 0.8
        ball = self.face_is_eye[fragments.face[head]]
        off = np.hypot(x - eye[0], y - eye[1])
        face[ball] = (0.86, 0.85, 0.83)
        face[ball & (off < 0.0062)] = self.iris
        face[ball & (off < 0.0028)] = 0.03
        if self.glasses:
            ring = np.hypot((x - eye[0]) / 1.2, y - eye[1])
            front = z > eye[2] - 0.01
            lens = (ring < 0.021) & front
            if self.glasses_dark:
                face[lens] *= 0.25
            frame = (np.abs(ring - 0.021) < 0.0035) & front
            bar = (np.abs(y - eye[1] - 0.006) < 0.003) & (z > eye[2] - 0.1)
            bar &= (x > eye[0] + 0.02) | (x < eye[0] - 0.02)
            face[frame | bar] = 0.08
        colour[head] = face

    def _mask(self, name: str, fragments: Fragments) -> np.ndarray:
        """float32 [N]: how much a place belongs to the lips, the ears, ..."""
        corners = self.faces[fragments.face]
        return (self.masks[name][corners] * fragments.weights).sum(axis=1)

    def _paint_feet(self, colour, place: Place):
        marks, shoes = self.marks, self.shoes
        lower = IS_FOOT[place.part] | (place.part == 5) | (place.part == 6)
        lower &= place.mesh == BODY
        if shoes.bare:
            return
        if shoes.sock > 0:
            colour[lower & (place.y < marks.ankle_y + shoes.sock)] = shoes.sock_colour
        shoe = (self._shoe_field(place) > 0) & lower
        colour[shoe] = shoes.colour
        colour[shoe & (place.y < marks.floor_y + 0.024)] = shoes.sole
        # Laces, or a seam: a lighter band over the instep.
        instep = shoe & (place.z > marks.trunk_z + 0.05) & IS_FOOT[place.part]
        instep &= (place.y > marks.floor_y + 0.05) & (
            (place.z * 90).astype(int) % 2 == 0
        )
        colour[instep] = 0.6 * shoes.colour + 0.4 * shoes.sole

    def _paint_bottom(self, colour, place: Place, u, v):
        marks, bottom = self.marks, self.bottom
        inside = self._bottom_field(place)
        on_skirt = place.mesh == SKIRT
        worn = (inside > 0) | on_skirt
        rows = np.flatnonzero(worn)
        colour[rows] = bottom.cloth.at(u[rows], v[rows])
        if bottom.side_stripe is not None:
            stripe = worn & (np.abs(place.z - marks.trunk_z) < 0.014)
            outside = np.abs(place.x) > marks.leg_x
            colour[stripe & outside] = bottom.side_stripe
        if not on_skirt.any() and bottom.length > 0.2:
            # Fly, pockets and seams.
            seam = worn & (np.abs(place.x) < 0.004) & (place.y > marks.hip_y - 0.07)
            colour[seam] *= 0.75
            colour[worn & (inside < 0.012)] *= 0.82  # hems
        if bottom.belt is not None:
            waist = marks.hip_y + bottom.rise
            colour[worn & (place.y > waist - 0.035)] = bottom.belt

    def _paint_top(self, colour, place: Place, top: Top, u, v, on_body):
        marks = self.marks
        inside = self._top_field(top, place)
        inside[~on_body] = -1.0
        rows = np.flatnonzero(inside > 0)
        colour[rows] = top.cloth.at(u[rows], v[rows])
        worn = inside > 0
        arm = IS_ARM[place.part]
        if top.sleeves is not None and top.sleeve > 0:
            rows = np.flatnonzero(worn & arm)
            colour[rows] = top.sleeves.at(u[rows], v[rows])
        front = place.z > marks.trunk_z
        if top.emblem is not None:
            size = 0.17
            column = ((place.x / size + 0.5) * top.emblem.shape[1]).astype(int)
            row = ((marks.chest_y + 0.07 - place.y) / size * len(top.emblem)).astype(
                int
            )
            on = worn & front & ~arm & (column >= 0) & (column < top.emblem.shape[1])
            on = np.flatnonzero(on & (row >= 0) & (row < len(top.emblem)))
            ink = top.emblem[row[on], column[on]]
            colour[on] = colour[on] * (1 - ink[:, 3:]) + ink[:, :3] * ink[:, 3:]
        if top.trim is not None:
            colour[worn & (inside < 0.014)] = top.trim
        else:
            colour[worn & (inside < 0.009)] *= 0.8
        if top.buttons is not None and top.opening < 0:
            line = worn & front & ~arm & (np.abs(place.x) < 0.004)
            colour[line] *= 0.7
            button = line & ((place.y * 100).astype(int) % 8 == 0)
            colour[button] = top.buttons

    def _paint_hair(self, colour, place: Place, fragments: Fragments):
        hair, marks = self.hair, self.marks
        angle = np.arctan2(place.x, place.z - marks.skull[2])
        column = (angle / (2 * np.pi) * 2 * noise.TILE).astype(int) % noise.TILE
        row = (place.y * 400).astype(int) % noise.TILE
        strand = np.exp(0.22 * hair.streaks[row, column])[:, None]
        inside = self._hair_field(place) + 0.004 * hair.streaks[row, column]
        covered = (inside > 0) & (place.mesh == BODY)
        if hair.style != "long":
            covered &= self._mask("ears", fragments) < 0.5
        if hair.style == "shaved":
            amount = 0.55 * _ramp(inside, 0.02)[:, None] * covered[:, None]
            colour[:] = colour * (1 - amount) + hair.colour * amount
        elif hair.style != "bald":
            if hair.style == "long":  # between the strands, at the nape
                nape = (place.part == 13) & (place.z < marks.neck_z + 0.02)
                covered |= nape & (place.mesh == BODY)
            colour[covered] = (hair.colour * strand)[covered]
        loose = place.mesh == HAIR
        colour[loose] = (hair.colour * strand)[loose]
        if hair.style in ("cap", "beanie", "hat"):
            on = (self._hat_field(place) > 0) & (place.mesh == BODY)
            colour[on] = hair.hat
            band = on & (self._hat_field(place) < 0.018)
            colour[band] = hair.hat * 0.7
            colour[place.mesh == HAT] = hair.hat * 0.9


def _draw_emblem(rng: np.random.Generator) -> np.ndarray:
    """A print for the chest, RGBA float [64, 64, 4]: number, ring, bars or photo."""
    picture = np.zeros((64, 64, 4), np.float32)
    ink = fabric.colour(rng)
    alpha = np.zeros((64, 64), np.uint8)
    kind = rng.integers(4)
    if kind == 0:
        text = str(rng.integers(1, 100))
        cv2.putText(alpha, text, (2, 52), cv2.FONT_HERSHEY_DUPLEX, 1.5, 255, 6)
    elif kind == 1:
        cv2.circle(
            alpha, (32, 32), int(rng.integers(14, 28)), 255, int(rng.integers(3, 20))
        )
    elif kind == 2:
        for row in rng.integers(4, 60, size=int(rng.integers(1, 5))):
            cv2.rectangle(alpha, (4, int(row)), (60, int(row) + 5), 255, -1)
    else:
        alpha[8:56, 4:60] = 255
    picture[..., :3] = ink
    if kind == 3:
        picture[..., :3] = photos.crop(rng, 64, 64)[1] / 255
    picture[..., 3] = alpha / 255
    return picture


def _on_head(points, faces):
    """A mesh that turns with the head and is labelled so."""
    skin = np.zeros((len(points), body.NUM_JOINTS), np.float32)
    skin[:, body.HEAD] = 1
    part = np.full(len(faces), body.HEAD + 1, np.uint8)
    return points.astype(np.float32), skin, faces, part


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    """Triangles of a grid of vertices that closes round in the columns."""
    row, column = np.mgrid[: rows - 1, :columns].reshape(2, -1)
    right = (column + 1) % columns
    a, b = row * columns + column, row * columns + right
    c, d = a + columns, b + columns
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


def _ellipsoid(centre: np.ndarray, radii: np.ndarray):
    rows, columns = 10, 16
    tilt = np.linspace(0, np.pi, rows)[:, None]
    turn = np.arange(columns) * 2 * np.pi / columns
    unit = np.stack(
        np.broadcast_arrays(
            np.sin(tilt) * np.sin(turn), np.cos(tilt), np.sin(tilt) * np.cos(turn)
        ),
        axis=-1,
    )
    return _on_head(centre + unit.reshape(-1, 3) * radii, _grid_faces(rows, columns))


def _brim(skull: np.ndarray, level: float, whole: bool, backwards: bool):
    """The brim of a hat, or the peak of a cap: a ring seen from both sides."""
    columns = 32
    turn = np.arange(columns) * 2 * np.pi / columns
    inner = np.array([0.078, 0.1])
    if whole:
        width = np.full(columns, 0.065)
    else:
        facing = -np.cos(turn) if backwards else np.cos(turn)
        width = 0.07 * np.clip((facing - 0.35) / 0.4, 0, 1)
    rings = []
    for share in (0.0, 1.0):
        x = np.sin(turn) * (inner[0] + share * width)
        z = np.cos(turn) * (inner[1] + share * width)
        y = level - skull[1] + 0.12 * z - share * 0.012 * (width > 0)
        rings.append(np.stack([x, y, z], axis=1))
    points = np.concatenate(rings) + skull
    faces = _grid_faces(2, columns)
    return _on_head(points, np.concatenate([faces, faces[:, ::-1]]))
