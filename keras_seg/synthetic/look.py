"""A person's looks: skin, face, hair and clothes, drawn at random.

Clothes are painted on the body, as in SURREAL, and push its surface outwards a little,
which gives sleeves, trouser legs, soles and hair their volume. Only skirts, long hair,
buns, ponytails and brims are meshes of their own. The part of a face never changes: a
sleeve has the label of the arm in it.

Colours are functions of the point on the T-posed body, so patterns move with the body
and have no seams.
"""

import numpy as np

from keras_seg.synthetic import body, noise, props, shade
from keras_seg.synthetic.anatomy import (
    IS_ARM,
    IS_FOOT,
    IS_HAND,
    IS_HEAD,
    IS_LEG,
    Landmarks,
    SurfacePoints,
    ramp,
)
from keras_seg.synthetic.draws import from_hex, from_hsv
from keras_seg.synthetic.raster import Fragments
from keras_seg.synthetic.wardrobe import Outfit, Top

BODY, SKIRT, HAIR, HAT = range(4)  # mesh ids

# From light to dark; tones in between are mixed.
SKIN_COLOURS = from_hex("f6d6c2 e7b89b c9936e 946242 6a4632 4c3327")
IRIS_COLOURS = (0.25, 0.16, 0.1), (0.32, 0.24, 0.14), (0.3, 0.42, 0.5), (0.3, 0.4, 0.3)


class Person:
    """One person: a shaped, dressed body in T-pose, and its colours.

    `vertices` and `faces` are the body's first, then those of skirt, hair and hat.
    """

    def __init__(self, rng: np.random.Generator, sex: str):
        self.sex = sex
        self.template = body.load(sex)
        self.shape = np.clip(rng.standard_normal(body.NUM_SHAPES), -2.5, 2.5)
        bare, self.joints = self.template.shaped(self.shape)
        self.marks = Landmarks.measure(self.template, bare, self.joints)
        self._draw_colours(rng)
        self.outfit = Outfit.draw(rng, sex, self.marks)
        self.description = f"{sex} {self.outfit.description}"
        self._build_mesh(bare)

    def _draw_colours(self, rng):
        tone = rng.beta(1.0, 1.3) * (len(SKIN_COLOURS) - 1)
        lower = min(int(tone), len(SKIN_COLOURS) - 2)
        share = tone - lower
        skin = SKIN_COLOURS[lower] * (1 - share) + SKIN_COLOURS[lower + 1] * share
        self.skin_colour = np.clip(skin * rng.normal(1, 0.03, 3), 0, 1)
        self.skin_noise = noise.draw(rng, "rough")
        self.lips = self.skin_colour * [0.86, 0.62, 0.62]
        if self.sex == "female" and rng.random() < 0.4:
            self.lips = from_hsv(rng.uniform(-0.06, 0.02) % 1, 0.7, 0.6)
        self.iris = IRIS_COLOURS[rng.choice(4, p=[0.5, 0.2, 0.2, 0.1])]
        self.glasses = rng.random() < 0.14
        self.glasses_dark = rng.random() < 0.5

    # ------------------------------------------------------------------- the mesh

    def _build_mesh(self, bare: np.ndarray):
        template = self.template
        vertices, skins = [bare], [template.skin]
        faces, parts, meshes = [template.faces], [template.face_part], [BODY]
        for mesh, (points, skin, extra_faces, extra_parts) in self._extras(bare):
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
        zeros = np.zeros(len(self.rest) - len(bare), np.float32)
        self.masks = {
            name: np.concatenate([mask, zeros]) for name, mask in template.masks.items()
        }
        part = (template.skin.argmax(axis=1) + 1).astype(np.uint8)
        points = SurfacePoints(bare, part, np.zeros(len(bare), np.uint8))
        normals = body.vertex_normals(bare, template.faces)
        self.vertices = self.rest.copy()
        self.vertices[: len(bare)] += self._displacement(points, normals)

    def _extras(self, bare):
        """The other meshes: (id, (vertices, skin, faces, parts)) of each."""
        marks, hair = self.marks, self.outfit.hair
        if self.outfit.bottom.skirt:
            points, skin, faces, parts = self.template.garment("skirt", bare)
            parts = self._skirt_parts(points, faces)
            hem = marks.leg_y(self.outfit.bottom.length)
            waist = marks.hip_y + self.outfit.bottom.rise
            seen = (points[faces, 1] > hem).any(1) & (points[faces, 1] < waist).all(1)
            points = points.copy()
            down = np.clip((waist - points[:, 1]) / 0.5, 0, 1)
            out = 1 + (0.02 + 4 * self.outfit.bottom.flare) * down
            points[:, 0] *= out
            points[:, 2] = marks.trunk_z + (points[:, 2] - marks.trunk_z) * out
            points[:, 1] = np.maximum(points[:, 1], hem)
            yield SKIRT, (points, skin, faces[seen], parts[seen])
        if hair.style == "long":
            points, skin, faces, parts = self.template.garment("hair", bare)
            seen = (points[faces, 1] > hair.length_y).any(axis=1)
            middle = points[faces].mean(axis=1)  # keep the face free
            seen &= (middle[:, 2] < marks.eye[2] - 0.035) | (
                middle[:, 1] > marks.eye[1] + hair.front - 0.01
            )
            points = points.copy()
            points[:, 1] = np.maximum(points[:, 1], hair.length_y)
            yield HAIR, (points, skin, faces[seen], parts[seen])
        skull, eye = marks.skull, marks.eye
        if hair.style == "bun":
            centre = np.array([0, marks.top_y - 0.03, skull[2] - 0.075])
            yield HAIR, props.ellipsoid(centre, np.array([0.042, 0.04, 0.042]))
        if hair.style == "tail":
            centre = np.array([0, eye[1] - 0.03, skull[2] - 0.1])
            yield HAIR, props.ellipsoid(centre, np.array([0.03, 0.11, 0.028]))
        if hair.style in ("cap", "hat"):
            level = eye[1] + 0.052
            yield HAT, props.brim(skull, level, hair.style == "hat", hair.backwards)

    def _skirt_parts(self, points, faces) -> np.ndarray:
        """uint8 [M]: hips, thigh or shin by height, left or right by side.

        Two consecutive triangles make a quad and have one part, which keeps the
        borders straight.
        """
        centre = points[faces].mean(axis=1).reshape(-1, 2, 3).mean(axis=1)
        x, y = centre[:, 0], centre[:, 1]
        right = (x < 0).astype(int)
        parts = np.where(y > self.marks.knee_y, 2, 5) + right
        parts = np.where(y > self.marks.hip_y - 0.05, 1, parts)
        return np.repeat(parts, 2).astype(np.uint8)

    def _displacement(self, points: SurfacePoints, normals: np.ndarray) -> np.ndarray:
        """[V, 3]: how clothes and hair move the body's vertices."""
        outfit, marks = self.outfit, self.marks
        out = np.zeros(len(normals), np.float32)
        for worn in (outfit.bottom, *outfit.tops):
            share = ramp(worn.inside(points, marks), 0.015)
            out = np.maximum(out, worn.gap(points, marks) * share)
        if not outfit.shoes.bare:
            out = np.maximum(
                out, 0.006 * ramp(outfit.shoes.inside(points, marks), 0.01)
            )
        hair = outfit.hair
        inside = hair.inside(points, marks)
        volume = 0.6 + 0.4 * np.clip((points.y - marks.eye[1]) / 0.08, 0, 1)
        volume *= hair.volume
        if hair.covered:
            inside = np.maximum(hair.inside_hat(points, marks), 0)
            volume = np.full(len(out), 0.014)
        if hair.style not in ("bald", "shaved"):
            out = np.maximum(out, volume * ramp(inside, 0.03))
        push = normals * out[:, None]
        if hair.style == "afro":  # round: away from the centre of the head
            outwards = points.position - marks.skull
            outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
            round_head = (inside > 0) & IS_HEAD[points.part]
            push[round_head] = (outwards * out[:, None])[round_head]
        if not outfit.shoes.bare:  # a flat sole
            sole = IS_FOOT[points.part] & (points.y < marks.floor_y + 0.02)
            push[sole, 1] -= 0.012
        return push

    # ------------------------------------------------------------------- the colours

    def albedo(self, fragments: Fragments) -> np.ndarray:
        """Linear RGB float32 [N, 3] of the fragments."""
        points = SurfacePoints(
            position=fragments.interpolate(self.faces, self.rest),
            part=self.face_part[fragments.face],
            mesh=self.face_mesh[fragments.face],
        )
        u, v = self._cloth_coordinates(points)
        colour = self._skin(points, u, v)
        self._paint_face(colour, points, fragments)
        on_body = points.mesh == BODY
        self._paint_feet(colour, points)
        self._paint_bottom(colour, points, u, v)
        for top in self.outfit.tops:
            self._paint_top(colour, points, top, u, v, on_body)
        if self.outfit.gloves is not None:
            colour[IS_HAND[points.part]] = self.outfit.gloves
        self._paint_hair(colour, points, fragments)
        return shade.to_linear(np.clip(colour, 0, 1))

    def _cloth_coordinates(self, points: SurfacePoints):
        """(u, v) of each point: metres around the trunk or limb, and along it."""
        marks, part = self.marks, points.part
        side = np.sign(points.x)
        arm, leg = IS_ARM[part], IS_LEG[part] & (part > 1) & (points.mesh != SKIRT)
        centre_x = np.where(leg, side * marks.leg_x, 0.0)
        angle = np.arctan2(points.x - centre_x, points.z - marks.trunk_z)
        girth = np.where(leg, 0.5, 1.0) / (2 * np.pi)
        u, v = angle * girth, -points.y
        around = np.arctan2(points.z - marks.arm_z, points.y - marks.arm_y)
        u = np.where(arm, around * 0.25 / (2 * np.pi), u)
        v = np.where(arm, np.abs(points.x), v)
        return u + 10.0, v + 10.0 + 0.137 * (side > 0) * (arm | leg)

    def _skin(self, points: SurfacePoints, u, v):
        texels = noise.TILE / 0.2
        row, column = (v * texels).astype(int), (u * texels).astype(int)
        grain = self.skin_noise[row % noise.TILE, column % noise.TILE]
        colour = self.skin_colour * (1 + 0.025 * grain[:, None])
        # Hands, feet, elbows and knees are redder.
        red = IS_HAND[points.part] | IS_FOOT[points.part]
        knee = np.abs(points.y - self.marks.knee_y) < 0.04
        elbow = np.abs(np.abs(points.x) - self.marks.elbow_x) < 0.03
        red = red | (knee & IS_LEG[points.part]) | (elbow & IS_ARM[points.part])
        colour[red] *= [1.0, 0.95, 0.93]
        return colour

    def _paint_face(self, colour, points: SurfacePoints, fragments: Fragments):
        head = np.flatnonzero(IS_HEAD[points.part] & (points.mesh == BODY))
        if not len(head):
            return
        marks, eye = self.marks, self.marks.eye
        x, y, z = np.abs(points.x[head]), points.y[head], points.z[head]

        def mask(name):
            return self._mask(name, fragments)[head, None]

        face = colour[head]
        # Redder cheeks and nose, darker eye sockets.
        warm = np.exp(-(((x - 0.035) / 0.02) ** 2) - ((y - eye[1] + 0.04) / 0.02) ** 2)
        face *= 1 - warm[:, None] * np.array([0.0, 0.08, 0.08])
        socket = np.exp(
            -(((x - eye[0]) / 0.022) ** 2) - ((y - eye[1] - 0.004) / 0.013) ** 2
        )
        face *= 1 - 0.16 * socket[:, None]
        if self.outfit.hair.beard:
            jaw = np.clip((marks.mouth[1] + 0.015 - y) / 0.02, 0, 1)
            jaw *= np.clip((z - marks.eye[2] + 0.075) / 0.02, 0, 1)
            chin_line = np.clip((y - marks.mouth[1] + 0.075) / 0.02, 0, 1)
            amount = (0.85 * self.outfit.hair.beard * jaw * chin_line)[:, None]
            amount *= 1 - mask("lips")
            face = face * (1 - amount) + self.outfit.hair.colour * 0.9 * amount
        inner = mask("lips")
        face = face * (1 - inner) + self.lips * inner
        face *= 1 - 0.7 * mask("inside_mouth")
        face *= 1 - 0.55 * mask("eyelids")
        arch = eye[1] + 0.021 + 0.1 * (0.02 - np.abs(x - eye[0]))
        brow = (np.abs(y - arch) < 0.0038) & (np.abs(x - eye[0]) < 0.021)
        brow &= z > eye[2] - 0.03
        face[brow] = 0.25 * face[brow] + 0.75 * self.outfit.hair.colour * 0.8
        ball = self.face_is_eye[fragments.face[head]]
        radius = np.hypot(x - eye[0], y - eye[1])
        face[ball] = (0.86, 0.85, 0.83)
        face[ball & (radius < 0.0062)] = self.iris
        face[ball & (radius < 0.0028)] = 0.03  # pupil
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
        """float32 [N]: to what degree a fragment belongs to lips, ears, ..."""
        corners = self.faces[fragments.face]
        return (self.masks[name][corners] * fragments.weights).sum(axis=1)

    def _paint_feet(self, colour, points: SurfacePoints):
        marks, shoes = self.marks, self.outfit.shoes
        lower = IS_FOOT[points.part] | (points.part == 5) | (points.part == 6)
        lower &= points.mesh == BODY
        if shoes.bare:
            return
        if shoes.sock > 0:
            colour[lower & (points.y < marks.ankle_y + shoes.sock)] = shoes.sock_colour
        shoe = (shoes.inside(points, marks) > 0) & lower
        colour[shoe] = shoes.colour
        colour[shoe & (points.y < marks.floor_y + 0.024)] = shoes.sole
        # Laces: bands over the instep.
        instep = shoe & (points.z > marks.trunk_z + 0.05) & IS_FOOT[points.part]
        instep &= points.y > marks.floor_y + 0.05
        instep &= (points.z * 90).astype(int) % 2 == 0
        colour[instep] = 0.6 * shoes.colour + 0.4 * shoes.sole

    def _paint_bottom(self, colour, points: SurfacePoints, u, v):
        marks, bottom = self.marks, self.outfit.bottom
        inside = bottom.inside(points, marks)
        on_skirt = points.mesh == SKIRT
        worn = (inside > 0) | on_skirt
        rows = np.flatnonzero(worn)
        colour[rows] = bottom.cloth.at(u[rows], v[rows])
        if bottom.side_stripe is not None:
            stripe = worn & (np.abs(points.z - marks.trunk_z) < 0.014)
            outside = np.abs(points.x) > marks.leg_x
            colour[stripe & outside] = bottom.side_stripe
        if not on_skirt.any() and bottom.length > 0.2:
            # Fly, pockets and seams.
            seam = worn & (np.abs(points.x) < 0.004) & (points.y > marks.hip_y - 0.07)
            colour[seam] *= 0.75
            colour[worn & (inside < 0.012)] *= 0.82  # hems
        if bottom.belt is not None:
            waist = marks.hip_y + bottom.rise
            colour[worn & (points.y > waist - 0.035)] = bottom.belt

    def _paint_top(self, colour, points: SurfacePoints, top: Top, u, v, on_body):
        marks = self.marks
        inside = top.inside(points, marks)
        inside[~on_body] = -1.0
        rows = np.flatnonzero(inside > 0)
        colour[rows] = top.cloth.at(u[rows], v[rows])
        worn = inside > 0
        arm = IS_ARM[points.part]
        if top.sleeves is not None and top.sleeve > 0:
            rows = np.flatnonzero(worn & arm)
            colour[rows] = top.sleeves.at(u[rows], v[rows])
        front = points.z > marks.trunk_z
        if top.emblem is not None:
            size = 0.17
            column = ((points.x / size + 0.5) * top.emblem.shape[1]).astype(int)
            row = (marks.chest_y + 0.07 - points.y) / size * len(top.emblem)
            row = row.astype(int)
            on = worn & front & ~arm & (column >= 0) & (column < top.emblem.shape[1])
            on = np.flatnonzero(on & (row >= 0) & (row < len(top.emblem)))
            ink = top.emblem[row[on], column[on]]
            colour[on] = colour[on] * (1 - ink[:, 3:]) + ink[:, :3] * ink[:, 3:]
        if top.trim is not None:
            colour[worn & (inside < 0.014)] = top.trim
        else:
            colour[worn & (inside < 0.009)] *= 0.8
        if top.buttons is not None and top.opening < 0:
            line = worn & front & ~arm & (np.abs(points.x) < 0.004)
            colour[line] *= 0.7
            button = line & ((points.y * 100).astype(int) % 8 == 0)
            colour[button] = top.buttons

    def _paint_hair(self, colour, points: SurfacePoints, fragments: Fragments):
        hair, marks = self.outfit.hair, self.marks
        angle = np.arctan2(points.x, points.z - marks.skull[2])
        column = (angle / (2 * np.pi) * 2 * noise.TILE).astype(int) % noise.TILE
        row = (points.y * 400).astype(int) % noise.TILE
        strand = np.exp(0.22 * hair.streaks[row, column])[:, None]
        inside = hair.inside(points, marks) + 0.004 * hair.streaks[row, column]
        covered = (inside > 0) & (points.mesh == BODY)
        if hair.style != "long":
            covered &= self._mask("ears", fragments) < 0.5
        if hair.style == "shaved":
            amount = 0.55 * ramp(inside, 0.02)[:, None] * covered[:, None]
            colour[:] = colour * (1 - amount) + hair.colour * amount
        elif hair.style != "bald":
            if hair.style == "long":  # between the strands, at the nape
                nape = (points.part == 13) & (points.z < marks.neck_z + 0.02)
                covered |= nape & (points.mesh == BODY)
            colour[covered] = (hair.colour * strand)[covered]
        loose = points.mesh == HAIR
        colour[loose] = (hair.colour * strand)[loose]
        if hair.covered:
            on = (hair.inside_hat(points, marks) > 0) & (points.mesh == BODY)
            colour[on] = hair.hat
            band = on & (hair.inside_hat(points, marks) < 0.018)
            colour[band] = hair.hat * 0.7
            colour[points.mesh == HAT] = hair.hat * 0.9
