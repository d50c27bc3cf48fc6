"""Clothes, shoes, hair and hats drawn at random: their cut, and what they cover.

`inside` of a garment returns the distance of points on the body from its edge, in
metres, negative outside; `gap`, how far it stands off the body. Colours are sRGB in
0..1.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from keras_seg.synthetic import fabric, noise, photos
from keras_seg.synthetic.anatomy import (
    IS_ARM,
    IS_FOOT,
    IS_HEAD,
    IS_LEG,
    IS_TRUNK,
    Landmarks,
    SurfacePoints,
)
from keras_seg.synthetic.draws import ANY, from_hex, hsv, pick

HAIR_COLOURS = from_hex(
    "161211 2c1e17 4c3222 704c2e a8804e ceac74 7c381e 928e8a d0ccc6"
)
HAIR_SHARES = (0.25, 0.22, 0.16, 0.1, 0.08, 0.05, 0.05, 0.06, 0.03)
HAIR_STYLES = {  # share of women, of men
    "bald": (0.0, 0.06),
    "shaved": (0.01, 0.13),
    "short": (0.1, 0.41),
    "medium": (0.18, 0.14),
    "afro": (0.06, 0.05),
    "long": (0.3, 0.03),
    "bun": (0.1, 0.01),
    "tail": (0.13, 0.02),
    "cap": (0.04, 0.08),
    "beanie": (0.04, 0.05),
    "hat": (0.04, 0.02),
}
OUTFITS = {  # share of women, of men
    "plain": (0.5, 0.55),
    "jacket": (0.22, 0.25),
    "dress": (0.08, 0.0),
    "sport": (0.12, 0.12),
    "swim": (0.05, 0.05),
    "overall": (0.03, 0.03),
}
SHOE_TOPS = {"bare": -1, "low": -0.015, "sneaker": 0.02, "boot": 0.12, "high": 0.28}


@dataclass
class Cloth:
    """A tile of cloth and its creases."""

    tile: np.ndarray
    folds: np.ndarray
    turn: bool = False  # pattern turned by 90 degrees

    @classmethod
    def draw(cls, rng: np.random.Generator, kind: str = "any") -> "Cloth":
        tile, folds = fabric.draw_tile(rng, kind), fabric.draw_folds(rng)
        return cls(tile, folds, turn=rng.random() < 0.15)

    def at(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """sRGB [N, 3] at metres across and along."""
        texels = fabric.TILE / fabric.TILE_M
        column = (u * texels).astype(int) % fabric.TILE
        row = (v * texels).astype(int) % fabric.TILE
        folds = self.folds[row, column]
        colour = self.tile[column, row] if self.turn else self.tile[row, column]
        return colour * folds[:, None]


@dataclass
class Top:
    """A garment of the trunk: shirt, pullover, jacket, bib, swimsuit."""

    cloth: Cloth
    neckline: str  # crew, v, scoop, turtle, straps, boat or hood
    depth: float  # of the neckline, metres
    sleeve: float  # its end: 0 shoulder, 1 elbow, 2 wrist; negative without sleeves
    hem: float  # metres above the hip joint
    ease: float  # metres that it stands off the body
    opening: float = -1.0  # half the width of an open front, metres; negative if closed
    sleeves: Cloth | None = None  # another cloth for the sleeves
    trim: np.ndarray | None = None  # colour of cuffs, hem and collar
    emblem: np.ndarray | None = None  # RGBA picture on the chest
    buttons: np.ndarray | None = None  # colour of a row of buttons

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Top":
        sleeve = rng.choice(
            [-0.3, 0.15, 0.45, 0.6, 1.3, 1.92], p=[0.1, 0.06, 0.3, 0.12, 0.08, 0.34]
        )
        necklines = {"crew": 0.38, "v": 0.17, "scoop": 0.14, "turtle": 0.08}
        necklines |= {"straps": 0.06, "boat": 0.11, "hood": 0.06}
        neckline = pick(rng, necklines)
        if neckline == "straps":
            sleeve = -0.3
        elif neckline == "hood":
            sleeve = 1.92
        top = cls(
            cloth=Cloth.draw(rng),
            neckline=neckline,
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

    @classmethod
    def draw_jacket(cls, rng: np.random.Generator) -> "Top":
        vest = rng.random() < 0.2
        necklines = {"crew": 0.25, "v": 0.42, "turtle": 0.18, "hood": 0.15}
        return cls(
            cloth=Cloth.draw(rng, "quiet" if rng.random() < 0.75 else "any"),
            neckline=pick(rng, necklines),
            depth=rng.uniform(0.03, 0.2),
            sleeve=-0.25 if vest else 1.9 + rng.normal(0, 0.04),
            hem=rng.choice([rng.uniform(-0.12, 0.06), rng.uniform(-0.35, -0.12)]),
            ease=rng.uniform(0.014, 0.026),
            opening=rng.uniform(0.01, 0.07) if rng.random() < 0.7 else -1.0,
            trim=fabric.colour(rng) if rng.random() < 0.3 else None,
            buttons=fabric.colour(rng) if rng.random() < 0.4 else None,
        )

    def inside(self, points: SurfacePoints, marks: Landmarks) -> np.ndarray:
        x, y, z = np.abs(points.x), points.y, points.z
        trunk, arm = IS_TRUNK[points.part], IS_ARM[points.part]
        hem = np.where(arm, 1.0, y - (marks.hip_y + self.hem))
        neck = np.where(arm, 1.0, self._below_neckline(x, y, z, marks))
        if self.sleeve < 0:
            edge = marks.shoulder_x + 0.1 * self.sleeve + 0.012
            sleeve = np.where(arm, edge - x, 1.0)
            raised = trunk & (y > marks.arm_y - 0.06)
            sleeve = np.where(raised, np.minimum(sleeve, edge - x), sleeve)
        else:
            sleeve = np.where(arm, marks.arm_x(self.sleeve) - x, 1.0)
        inside = np.minimum(np.minimum(hem, neck), sleeve)
        if self.opening >= 0:
            # An open front widens towards the hem.
            width = self.opening * (1.3 - (y - marks.hip_y) / 0.7)
            open_front = (z > marks.trunk_z) & ~arm
            inside = np.where(open_front, np.minimum(inside, x - width), inside)
        legs = IS_LEG[points.part] & ~IS_FOOT[points.part]
        return np.where(trunk | arm | legs, inside, -1.0)

    def _below_neckline(self, x, y, z, marks: Landmarks) -> np.ndarray:
        # The base of the neck slopes down to the front.
        base = marks.neck_y - 0.02 - 0.55 * (z - marks.neck_z)
        in_front = np.clip((z - marks.neck_z) / 0.02, 0, 1)
        if self.neckline == "turtle":
            return base + 0.06 - y
        if self.neckline == "hood":
            return base + 0.05 * (1 - in_front) - y
        if self.neckline == "v":
            cut = np.maximum(0, self.depth - 1.2 * x) * in_front
            return base + 0.005 - cut - y
        if self.neckline == "scoop":
            cut = self.depth * np.maximum(0, 1 - (x / 0.09) ** 2) * in_front
            return base - 0.01 - cut - y
        if self.neckline == "boat":
            return base - 0.02 - 0.03 * np.clip(1 - x / 0.12, 0, 1) - y
        if self.neckline == "straps":
            strap = 0.016 - np.abs(x - 0.085)
            cut = marks.chest_y + 0.03 - 0.02 * in_front - y
            return np.maximum(cut, np.minimum(strap, base + 0.02 - y))
        return base - y

    def gap(self, points: SurfacePoints, marks: Landmarks) -> np.ndarray:
        gap = self.ease * np.where(IS_ARM[points.part], 0.8, 1.0)
        if self.neckline == "hood":  # a roll behind the neck
            behind = ((points.y - marks.neck_y + 0.02) / 0.05) ** 2
            behind += ((points.x) / 0.11) ** 2
            gap = gap + 0.035 * np.exp(-behind) * (points.z < marks.neck_z)
        return gap


@dataclass
class Bottom:
    """Trousers, shorts, briefs or a skirt."""

    cloth: Cloth
    length: float  # 0 hip, 1 knee, 2 ankle
    rise: float  # waistband above the hip joint, metres
    ease: float  # metres off the body
    flare: float  # additional ease at the hem
    skirt: bool = False
    belt: np.ndarray | None = None  # colour
    side_stripe: np.ndarray | None = None  # colour

    @classmethod
    def draw(cls, rng: np.random.Generator, sex: str) -> "Bottom":
        skirt = sex == "female" and rng.random() < 0.22
        if skirt:
            length = rng.uniform(0.35, 1.5)
        else:
            length = rng.choice(
                [0.25, 0.5, 0.85, 1.5, 1.95], p=[0.06, 0.14, 0.12, 0.06, 0.62]
            ) + rng.normal(0, 0.04)
        tight = rng.random() < (0.45 if sex == "female" else 0.15)
        kind = pick(rng, {"denim": 0.35, "quiet": 0.45, "any": 0.2})
        return cls(
            cloth=Cloth.draw(rng, kind),
            length=float(length),
            rise=rng.uniform(0.05, 0.13),
            ease=0.003 if tight else rng.uniform(0.007, 0.02),
            flare=0.0 if tight else rng.choice([0.0, 0.01, 0.025], p=[0.6, 0.3, 0.1]),
            skirt=skirt,
            belt=fabric.colour(rng) * 0.6 if rng.random() < 0.3 else None,
            side_stripe=fabric.colour(rng) if rng.random() < 0.08 else None,
        )

    def inside(self, points: SurfacePoints, marks: Landmarks) -> np.ndarray:
        hem = marks.leg_y(self.length)
        if self.length < 0.1:  # briefs: cut high at the side
            hem = marks.hip_y - 0.09 + 0.75 * np.maximum(np.abs(points.x) - 0.04, 0)
        waist = marks.hip_y + self.rise
        inside = np.minimum(points.y - hem, waist - points.y)
        reach = IS_LEG[points.part] | IS_TRUNK[points.part]
        if self.length < 1.9:
            reach &= ~IS_FOOT[points.part]
        return np.where(reach, inside, -1.0)

    def gap(self, points: SurfacePoints, marks: Landmarks) -> np.ndarray:
        if self.skirt or self.length < 0.1:
            return np.full(len(points.part), 0.002)
        near_hem = np.clip(1 - (points.y - marks.leg_y(self.length)) / 0.3, 0, 1)
        return self.ease + self.flare * near_hem


@dataclass
class Shoes:
    """top, sock: their upper edges above the ankle joint, metres; sock < 0: none."""

    colour: np.ndarray
    sole: np.ndarray
    top: float
    sock: float
    sock_colour: np.ndarray
    bare: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator, bare: bool) -> "Shoes":
        shares = {"bare": 0.1, "low": 0.3, "sneaker": 0.38, "boot": 0.14, "high": 0.08}
        kind = "bare" if bare else pick(rng, shares)
        colour = fabric.colour(rng) * (0.5 if rng.random() < 0.55 else 1.0)
        sole = fabric.colour(rng) if rng.random() < 0.3 else np.full(3, 0.88)
        return cls(
            colour=colour,
            sole=colour * 0.6 if rng.random() < 0.5 else sole,
            top=SHOE_TOPS[kind] + rng.normal(0, 0.01),
            sock=rng.choice([-1.0, 0.05, 0.12, 0.3], p=[0.4, 0.25, 0.25, 0.1]),
            sock_colour=np.full(3, 0.9) if rng.random() < 0.4 else fabric.colour(rng),
            bare=kind == "bare",
        )

    def inside(self, points: SurfacePoints, marks: Landmarks) -> np.ndarray:
        reach = IS_FOOT[points.part] | (points.part == 5) | (points.part == 6)
        return np.where(reach, marks.ankle_y + self.top - points.y, -1.0)


@dataclass
class Hair:
    """Hair, and what is worn on it."""

    style: str  # a key of HAIR_STYLES
    colour: np.ndarray
    volume: float  # metres off the head
    front: float  # hairline of the forehead above the eyes, metres
    length_y: float  # height of the ends of long hair
    hat: np.ndarray  # colour of a cap, beanie or hat
    backwards: bool  # whether the peak of a cap points backwards
    beard: float  # density in 0..1
    streaks: np.ndarray  # a noise tile

    @classmethod
    def draw(cls, rng: np.random.Generator, sex: str, marks: Landmarks) -> "Hair":
        style = pick(rng, {k: v[sex == "male"] for k, v in HAIR_STYLES.items()})
        colour = HAIR_COLOURS[rng.choice(len(HAIR_COLOURS), p=HAIR_SHARES)]
        if rng.random() < 0.03:
            colour = hsv(rng, ANY, 0.7, 0.7)
        volume = {
            "short": rng.uniform(0.006, 0.014),
            "medium": rng.uniform(0.014, 0.03),
            "afro": rng.uniform(0.035, 0.065),
            "long": 0.008,
            "bun": 0.006,
            "tail": 0.006,
        }.get(style, 0.003)
        bearded = sex == "male" and rng.random() < 0.35
        return cls(
            style=style,
            colour=np.clip(colour * rng.uniform(0.85, 1.15), 0, 1),
            volume=volume,
            front=rng.uniform(0.055, 0.085),
            length_y=marks.mouth[1] - rng.uniform(0.02, 0.26),
            hat=fabric.colour(rng),
            backwards=rng.random() < 0.25,
            beard=rng.uniform(0.25, 0.95) if bearded else 0.0,
            streaks=noise.draw(rng, "streak").T,
        )

    @property
    def covered(self) -> bool:
        """Whether something is worn on the head."""
        return self.style in ("cap", "beanie", "hat")

    def inside(self, points: SurfacePoints, marks: Landmarks) -> np.ndarray:
        """Metres above the hairline, from the forehead past the ears to the nape."""
        line = marks.eye[1] + np.interp(
            points.z - marks.eye[2],
            [-0.2, -0.13, -0.105, -0.095, -0.075, -0.03, 0.03],
            [-0.085, -0.07, -0.02, -0.005, 0.02, self.front - 0.01, self.front],
        )
        reach = IS_HEAD[points.part] | (points.part == 13)
        return np.where(reach, points.y - line, -1.0)

    def inside_hat(self, points: SurfacePoints, marks: Landmarks) -> np.ndarray:
        back = points.z - marks.skull[2]
        line = marks.eye[1] + 0.045 + 0.2 * back
        if self.style == "beanie":
            line = marks.eye[1] + 0.03 + 0.5 * back
        return np.where(IS_HEAD[points.part], points.y - line, -1.0)


@dataclass
class Outfit:
    """Everything that a person wears; the innermost top comes first."""

    kind: str
    tops: list[Top]
    bottom: Bottom
    shoes: Shoes
    hair: Hair
    gloves: np.ndarray | None

    @classmethod
    def draw(cls, rng: np.random.Generator, sex: str, marks: Landmarks) -> "Outfit":
        kind = pick(rng, {k: v[sex == "male"] for k, v in OUTFITS.items()})
        bottom, tops = Bottom.draw(rng, sex), [Top.draw(rng)]
        if kind == "jacket":
            tops.append(Top.draw_jacket(rng))
        elif kind == "dress":
            bottom.cloth, bottom.skirt = tops[0].cloth, True
            bottom.length = rng.uniform(0.45, 1.7)
            bottom.belt = fabric.colour(rng) if rng.random() < 0.4 else None
            tops[0].hem = bottom.rise - 0.03
        elif kind == "sport":
            bottom.length = float(rng.choice([0.35, 0.55, 1.9]))
            bottom.side_stripe = fabric.colour(rng) if rng.random() < 0.6 else None
        elif kind == "swim":
            bottom.skirt, bottom.rise, bottom.belt = False, 0.05, None
            bottom.length = float(rng.choice([0.05, 0.3, 0.6]))
            tops = []
            if sex == "female":
                bottom.length = 0.02
                tops = [Top(Cloth.draw(rng), "straps", 0.1, -0.5, 0.05, 0.003)]
                if rng.random() < 0.5:  # two pieces
                    tops[0].hem = marks.chest_y - marks.hip_y - 0.06
        elif kind == "overall":
            cloth = Cloth.draw(rng, "denim" if rng.random() < 0.6 else "quiet")
            bottom = Bottom(cloth, float(rng.choice([0.4, 1.9])), 0.1, 0.014, 0.006)
            tops.append(Top(cloth, "straps", 0.1, -0.6, 0.06, 0.012))
        return cls(
            kind=kind,
            tops=tops,
            bottom=bottom,
            shoes=Shoes.draw(rng, bare=kind == "swim"),
            hair=Hair.draw(rng, sex, marks),
            gloves=fabric.colour(rng) if rng.random() < 0.04 else None,
        )

    @property
    def description(self) -> str:
        legs = "trousers" if self.bottom.length > 1.2 else "shorts"
        legs = "skirt" if self.bottom.skirt else legs
        return f"{self.kind} {legs} hair-{self.hair.style}"


def _draw_emblem(rng: np.random.Generator) -> np.ndarray:
    """A chest print, RGBA float [64, 64, 4]: number, ring, bars or photograph."""
    picture = np.zeros((64, 64, 4), np.float32)
    ink = fabric.colour(rng)
    alpha = np.zeros((64, 64), np.uint8)
    kind = rng.integers(4)
    if kind == 0:
        text = str(rng.integers(1, 100))
        cv2.putText(alpha, text, (2, 52), cv2.FONT_HERSHEY_DUPLEX, 1.5, 255, 6)
    elif kind == 1:
        radius, width = int(rng.integers(14, 28)), int(rng.integers(3, 20))
        cv2.circle(alpha, (32, 32), radius, 255, width)
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
