"""Streets, parks, beaches and woods, laid out at random on a `stage.Stage`."""

import numpy as np

from keras_seg.synthetic import fabric, noise, shade, surfaces
from keras_seg.synthetic.draws import hsv
from keras_seg.synthetic.stage import Layout


def draw_sky(rng: np.random.Generator, rays: np.ndarray) -> np.ndarray:
    """Linear RGB float32 in directions [h, w, 3]: a blue or grey sky above haze."""
    hue = rng.uniform(0.54, 0.62)
    kind = rng.random()
    zenith = hsv(rng, hue, (0.25, 0.75), (0.5, 0.9))
    haze = hsv(rng, hue, (0.02, 0.3), (0.8, 1.0))
    if kind < 0.25:  # overcast
        zenith = hsv(rng, hue, 0.08, (0.55, 0.85))
    elif kind < 0.37:  # evening
        zenith = hsv(rng, (0.55, 0.72), 0.5, (0.3, 0.6))
        haze = hsv(rng, (0.02, 0.12), 0.5, 0.95)
    rise = rays[..., 1] / np.linalg.norm(rays, axis=2)
    share = np.clip(rise / 0.35, 0, 1)[..., None] ** 0.7
    sky = haze * (1 - share) + zenith * share
    # Clouds are on a plane above, so they shrink towards the horizon.
    height = np.maximum(rise, 0.02)
    scale = rng.uniform(20, 60)
    row = (rays[..., 2] / height * scale).astype(int) % noise.TILE
    column = (rays[..., 0] / height * scale).astype(int) % noise.TILE
    tile = noise.draw(rng, "cloud") + 0.3 * noise.draw(rng, "rough")
    cover = np.clip((tile[row, column] - rng.uniform(-0.5, 1.5)) * 0.6, 0, 0.9)
    cover = (cover * np.clip(rise / 0.12, 0, 1))[..., None]
    cloud = hsv(rng, hue, 0.03, (0.75, 1.0))
    return shade.to_linear(sky * (1 - cover) + cloud * cover)


class Land(Layout):
    """An open place."""

    def build(self) -> str:
        """Lay out one of the kinds of places; returns its name."""
        kinds = {
            self._street: 2.6,
            self._park: 2.2,
            self._square: 1.4,
            self._wall: 1.6,
            self._wood: 1.2,
            self._shore: 0.8,
            self._pitch: 0.9,
        }
        build, name = self.pick_kind(kinds)
        build()
        return name

    # ------------------------------------------------------------------------- things

    def _ground(self, tile, tile_m: float, far=120.0):
        surface = self.paint(tile)
        self.stage.quad([-far, 0, -3], [2 * far, 0, 0], [0, 0, far], surface, tile_m)

    def _strip(self, surface, near, far, tile_m, lift, left=-80.0, right=80.0):
        """A band of ground between two depths."""
        along, up = [right - left, 0, 0], [0, 0, far - near]
        self.stage.quad([left, lift, near], along, up, surface, tile_m)

    def _x(self, z: float, reach=0.36) -> float:
        """A position across the view at depth z."""
        return self.rng.uniform(-reach, reach) * z

    def _trees(self, count: int, near: float, far: float):
        rng = self.rng
        shapes = rng.choice(["crown", "crown", "fir"], 3)
        leaves = [self.paint(surfaces.leaves, str(shape)) for shape in shapes]
        trunk = self.paint(surfaces.bark)
        for z in np.sort(rng.uniform(near, far, count)):
            self._tree(self._x(z, 0.5), z, self.choose(leaves), trunk)

    def _tree(self, x, z, leaf, trunk):
        rng, stage = self.rng, self.stage
        height = rng.uniform(3, 9)
        bole = height * rng.uniform(0.2, 0.5)
        top = bole + height * 0.2
        stage.column([x, 0, z], height * 0.03, top, trunk, tile_m=1.0)
        width = height * rng.uniform(0.5, 0.9)
        for offset in (0.0, rng.uniform(0.2, 0.5)):
            left = x - width / 2 + rng.uniform(-0.2, 0.2) * width
            origin = [left, bole - 0.2 * offset * height, z - 0.3 - offset]
            up = [0, height - bole * (1 - offset), 0]
            stage.quad(origin, [width, 0, 0], up, leaf)

    def _bushes(self, count: int, near: float, far: float):
        leaf = self.paint(surfaces.leaves, "bush")
        for z in np.sort(self.rng.uniform(near, far, count)):
            width, height = self.rng.uniform(0.8, 3), self.rng.uniform(0.6, 1.8)
            corner = [self._x(z, 0.45), -height * 0.15, z]
            self.stage.quad(corner, [width, 0, 0], [0, height, 0], leaf)

    def _hedge(self, z: float):
        rng = self.rng
        leaf = self.stage.surface(surfaces.leaves(rng, "bush")[..., :3])
        height = rng.uniform(0.6, 2.2)
        self.stage.box([0, 0, z], (60, height, 1.0), leaf, tile_m=rng.uniform(1, 2))

    def _fence(self, z: float):
        rng, stage = self.rng, self.stage
        wooden = rng.random() < 0.6
        surface = self.paint(surfaces.wood if wooden else surfaces.corrugated)
        height = rng.uniform(0.8, 1.8)
        up = [0, height, 0]
        if rng.random() < 0.4:
            stage.quad([-30, 0, z], [60, 0, 0], up, surface, 1.5)
            return
        gap = rng.uniform(0.12, 0.3)
        reach = 0.4 * z
        for x in np.arange(-reach, reach, gap):
            stage.quad([x, 0, z], [gap * 0.5, 0, 0], up, surface, 1.5)
        for level in (0.25, 0.8):
            corner = [-reach, height * level, z + 0.02]
            stage.quad(corner, [2 * reach, 0, 0], [0, 0.08, 0], surface, 1.5)

    def _house(self, x, z, width, depth, height):
        wall, size = self.paint(surfaces.facade), (width, height, depth)
        self.stage.box([x, 0, z], size, wall, tile_m=self.rng.uniform(2.6, 5))

    def _horizon(self):
        for z in (100.0, 80.0)[: self.rng.integers(0, 3)]:
            ridge, height = self.paint(surfaces.ridge), self.rng.uniform(4, 16)
            width = self.rng.uniform(40, 110)
            for x in np.arange(-60, 60, width):
                self.stage.quad([x, 0, z], [width, 0, 0], [0, height, 0], ridge)

    def _post(self, x, z):
        rng, stage = self.rng, self.stage
        metal = self.paint(surfaces.plaster, np.full(3, rng.uniform(0.1, 0.6)))
        height = rng.uniform(2.5, 6)
        stage.column([x, 0, z], 0.06, height, metal)
        if rng.random() < 0.6:
            stage.box([x, height, z], (0.5, 0.15, 0.2), metal, glow=0.3)
        elif rng.random() < 0.7:
            sign = self.paint(surfaces.abstract)
            corner = [x - 0.3, height - 0.7, z - 0.07]
            stage.quad(corner, [0.6, 0, 0], [0, 0.6, 0], sign)

    def _car(self, x, z, yaw):
        rng, stage = self.rng, self.stage
        colour = hsv(rng, rng.random(), rng.choice([0.05, 0.8]), (0.1, 0.95))
        body = self.paint(surfaces.plaster, colour)
        glass = self.paint(surfaces.plaster, np.full(3, 0.12))
        tyre = self.paint(surfaces.plaster, np.full(3, 0.05))
        height = rng.uniform(0.5, 0.75)
        stage.box([x, 0.28, z], (4.2, height, 1.7), body, yaw)
        stage.box([x, 0.28 + height, z], (2.2, 0.5, 1.5), glass, yaw)
        stage.box([x, 0.78 + height, z], (2.1, 0.06, 1.5), body, yaw)
        sine, cosine = np.sin(yaw), np.cos(yaw)
        for along in (-1.3, 1.3):
            wheel_x = x + cosine * along - sine * 0.8
            wheel_z = z - sine * along - cosine * 0.8
            stage.box([wheel_x, 0, wheel_z], (0.62, 0.62, 0.2), tyre, yaw)

    def _bench(self, x, z):
        wood = self.paint(surfaces.wood)
        seat, slat = (1.6, 0.05, 0.4), (1.6, 0.1, 0.04)
        boards = (0.42, 0.0, seat), (0.62, 0.2, slat), (0.76, 0.22, slat)
        for y, depth, size in boards:
            self.stage.box([x, y, z + depth], size, wood, tile_m=1.0)
        for side in (-0.6, 0.6):
            self.stage.box([x + side, 0, z], (0.08, 0.42, 0.35), wood, tile_m=1.0)

    # ------------------------------------------------------------------------- places

    def _street(self):
        rng, stage = self.rng, self.stage
        self._ground(surfaces.asphalt, 3.0)
        pavements = [surfaces.tiles, surfaces.concrete, surfaces.stones]
        pavement = self.paint(self.choose(pavements))
        if rng.random() < 0.5:  # looking across the street
            front = self.near + rng.uniform(2, 12)
            self._strip(pavement, front - rng.uniform(1, 3), front + 1, 1.5, 0.1)
            self._strip(pavement, -3, self.near + rng.uniform(-2, 1), 1.5, 0.1)
            x = -0.7 * front
            while x < 0.7 * front:
                width = rng.uniform(4, 12)
                self._house(x + width / 2, front + 4, width, 8, rng.uniform(4, 16))
                x += width + (rng.uniform(1, 5) if rng.random() < 0.2 else 0)
            for _ in range(rng.integers(0, 4)):
                z = front - rng.uniform(2.5, 4)
                if z > self.near + 1:
                    x = self._x(z, 0.5)
                    self._car(x, z, rng.choice([0, np.pi]) + rng.normal(0, 0.05))
        else:  # looking along it
            half = rng.uniform(3, 6)
            for side in (-1, 1):
                edge = side * half
                outer = side * (half + rng.uniform(1.5, 3))
                corner, along = [min(edge, outer), 0.12, -3], [abs(outer - edge), 0, 0]
                stage.quad(corner, along, [0, 0, 100], pavement, 1.5)
                z = rng.uniform(-2, 6)
                while z < 70:
                    length = rng.uniform(5, 14)
                    x, height = outer + side * 4, rng.uniform(4, 15)
                    self._house(x, z + length / 2, 8, length, height)
                    z += length + (rng.uniform(1, 6) if rng.random() < 0.25 else 0)
                for _ in range(rng.integers(0, 4)):
                    z = rng.uniform(self.near + 2, 40)
                    self._car(side * (half - 1.1), z, np.pi / 2)
            line = self.paint(surfaces.plaster, np.full(3, 0.85))
            for z in np.arange(0, 60, 4):
                stage.quad([-0.06, 0.01, z], [0.12, 0, 0], [0, 0, 2], line)
            self._horizon()
        for _ in range(rng.integers(0, 4)):
            z = rng.uniform(self.near + 0.5, self.near + 10)
            self._post(self._x(z), z)
        if rng.random() < 0.5:
            self._trees(int(rng.integers(1, 5)), self.near + 1, self.near + 14)

    def _park(self):
        rng = self.rng
        self._ground(surfaces.lawn, rng.uniform(2, 4))
        self._horizon()
        if rng.random() < 0.6:
            paths = [surfaces.gravel, surfaces.asphalt, surfaces.sand]
            path = self.paint(self.choose(paths))
            near = rng.uniform(0, self.near + 4)
            self._strip(path, near, near + rng.uniform(1.5, 4), 2.0, 0.01)
        if rng.random() < 0.25:
            near = self.near + rng.uniform(2, 10)
            self._strip(self.paint(surfaces.water), near, near + 20, 6.0, 0.01)
        if rng.random() < 0.4:
            self._house(self._x(40), 45, rng.uniform(8, 25), 8, rng.uniform(4, 12))
        self._trees(int(rng.integers(4, 16)), self.near + 2, 45)
        self._bushes(int(rng.integers(0, 8)), self.near + 1, 25)
        if rng.random() < 0.3:
            self._hedge(self.near + rng.uniform(1.5, 12))
        elif rng.random() < 0.4:
            self._fence(self.near + rng.uniform(1.5, 12))
        for _ in range(rng.integers(0, 3)):
            z = self.near + rng.uniform(0.8, 6)
            self._bench(self._x(z), z)

    def _square(self):
        rng, stage = self.rng, self.stage
        floors = [surfaces.tiles, surfaces.stones, surfaces.concrete, surfaces.marble]
        self._ground(self.choose(floors), rng.uniform(1.5, 3))
        front = self.near + rng.uniform(3, 18)
        width = rng.uniform(12, 50)
        self._house(self._x(front, 0.3), front + 5, width, 10, rng.uniform(6, 18))
        stone = self.paint(surfaces.concrete)
        if rng.random() < 0.5:
            for step in range(int(rng.integers(2, 7))):
                size = (30, 0.16 * (7 - step) / 2, 0.7)
                stage.box([0, 0, front - step * 0.35], size, stone, tile_m=2.0)
        if rng.random() < 0.4:
            for x in np.arange(-0.6 * front, 0.6 * front, rng.uniform(2, 4)):
                radius = rng.uniform(0.2, 0.4)
                stage.column([x, 0, front - 0.5], radius, 5, stone, tile_m=2.0)
        self._trees(int(rng.integers(0, 6)), self.near + 1, front)
        for _ in range(rng.integers(0, 4)):
            z = rng.uniform(self.near + 0.5, front)
            (self._post if rng.random() < 0.5 else self._bench)(self._x(z), z)

    def _wall(self):
        """A wall close by."""
        rng, stage = self.rng, self.stage
        floors = [surfaces.asphalt, surfaces.concrete, surfaces.stones, surfaces.gravel]
        floors += [surfaces.lawn, surfaces.tiles]
        self._ground(self.choose(floors), rng.uniform(1.2, 2.5))
        back = self.near + rng.uniform(0.5, 4)
        walls = [surfaces.brick, surfaces.stones, surfaces.concrete]
        walls += [surfaces.corrugated, surfaces.facade, surfaces.plaster, surfaces.wood]
        size = (80, rng.uniform(1.2, 6), 0.4)
        surface = self.paint(self.choose(walls))
        stage.box([0, 0, back + 0.2], size, surface, tile_m=rng.uniform(1.2, 3))
        for _ in range(rng.integers(0, 4)):  # graffiti, posters, doors
            width = rng.uniform(0.5, 2.5)
            tile = self.choose([surfaces.abstract, surfaces.picture, surfaces.door])
            low = 0.0 if tile is surfaces.door else rng.uniform(0.2, 1)
            corner = [self._x(back) - width / 2, low, back - 0.01]
            up = 2.1 if tile is surfaces.door else rng.uniform(0.5, 1.5)
            up = [0, min(up, size[1] - low), 0]
            stage.quad(corner, [width, 0, 0], up, self.paint(tile))
        self._trees(int(rng.integers(0, 4)), back + 2, back + 15)
        self._bushes(int(rng.integers(0, 4)), back - 0.4, back - 0.05)

    def _wood(self):
        rng, stage = self.rng, self.stage
        self._ground(surfaces.soil if rng.random() < 0.7 else surfaces.lawn, 2.5)
        green = self.stage.surface(surfaces.leaves(rng, "bush")[..., :3])
        stage.quad([-60, 0, 55], [120, 0, 0], [0, 14, 0], green, 7.0, (0.6, 0.6, 0.6))
        trunks = [self.paint(surfaces.bark) for _ in range(2)]
        for z in np.sort(rng.uniform(self.near + 1, 45, int(rng.integers(20, 60)))):
            x, radius = self._x(z, 0.5), rng.uniform(0.08, 0.35)
            stage.column([x, 0, z], radius, 12, self.choose(trunks), tile_m=1.5)
        self._bushes(int(rng.integers(4, 16)), self.near + 1, 30)
        self._trees(int(rng.integers(2, 8)), self.near + 6, 45)

    def _shore(self):
        rng = self.rng
        self._ground(surfaces.sand if rng.random() < 0.7 else surfaces.gravel, 3.0)
        near = self.near + rng.uniform(1, 14)
        water = self.paint(surfaces.water)
        self._strip(water, near, 118, rng.uniform(5, 9), 0.02, -120, 120)
        foam = self.paint(surfaces.plaster, np.full(3, 0.95))
        for wave in range(rng.integers(0, 4)):
            z = near + wave * rng.uniform(1, 3)
            self._strip(foam, z, z + 0.15, 2.0, 0.03)
        self._horizon()
        if rng.random() < 0.4:
            self._bushes(int(rng.integers(1, 6)), self.near + 0.5, near)
        if rng.random() < 0.5:
            for _ in range(rng.integers(1, 4)):
                z = rng.uniform(self.near + 0.5, near + 1)
                x, cloth = self._x(z), self.stage.surface(fabric.draw_tile(rng))
                self.stage.column([x, 0, z], 0.03, 2.2, cloth)
                self.stage.column([x, 1.8, z], 1.2, 0.4, cloth, 0.05, tile_m=1.0)

    def _pitch(self):
        rng = self.rng
        if rng.random() < 0.5:
            self._ground(surfaces.lawn, 3.0)
        else:
            colour = hsv(rng, rng.choice([0.02, 0.35, 0.6]), 0.6, (0.35, 0.7))
            self._ground(lambda rng: surfaces.textured(rng, "gravel", colour, 0.06), 2)
        line = self.paint(surfaces.plaster, np.full(3, 0.95))
        for _ in range(rng.integers(1, 6)):
            if rng.random() < 0.5:
                z = rng.uniform(1, 25)
                self._strip(line, z, z + 0.1, 2.0, 0.01)
            else:
                self._strip(line, -3, 40, 2.0, 0.01, x := self._x(8), x + 0.08)
        back = self.near + rng.uniform(4, 25)
        self.choose([self._fence, self._hedge])(back)
        if rng.random() < 0.5:  # boards
            boards = [self.paint(surfaces.abstract) for _ in range(3)]
            for number, x in enumerate(np.arange(-0.5 * back, 0.5 * back, 3)):
                board, corner = boards[number % 3], [x, 0, back - 0.7]
                self.stage.quad(corner, [2.9, 0, 0], [0, 0.9, 0], board)
        self._trees(int(rng.integers(0, 10)), back + 1, back + 25)
        self._horizon()
