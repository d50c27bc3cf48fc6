"""Rooms: walls, windows and furniture, laid out at random on a `stage.Stage`."""

import numpy as np

from keras_seg.synthetic import fabric, surfaces
from keras_seg.synthetic.draws import ANY, hsv
from keras_seg.synthetic.stage import Layout, Stage

CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))  # of a table or chair: signs of x and z


class Room(Layout):
    """A room seen from one side; its back wall is at z = `back`."""

    def __init__(self, rng: np.random.Generator, stage: Stage, near: float):
        super().__init__(rng, stage, near)
        self.back = near + rng.uniform(0.8, 4.5)
        self.height = rng.uniform(2.4, 3.6)
        reach = self.back * 0.55  # half the width of the view at the back wall
        self.left = -rng.uniform(0.35, 1.5) * reach
        self.right = rng.uniform(0.35, 1.5) * reach
        self.lamps: list[tuple] = []
        self.taken: list[tuple[float, float]] = []  # (left, right) at the back wall

    def build(self) -> str:
        """Lay out one of the kinds of rooms; returns its name."""
        rng = self.rng
        kinds = {
            self._living_room: 3.0,
            self._bedroom: 1.6,
            self._kitchen: 1.6,
            self._office: 1.2,
            self._hall: 1.4,
            self._bare: 0.8,
        }
        build, name = self.pick_kind(kinds)
        self._shell(sporty=name == "hall")
        build()
        if rng.random() < 0.7:
            x = rng.uniform(self.left, self.right)
            power = np.array([1, 0.85, 0.65]) * rng.uniform(1, 5)
            position = (x, self.height - 0.3, rng.uniform(3, self.back))
            self.lamps.append((position, power))
        return name

    # ------------------------------------------------------------------- the shell

    def _shell(self, sporty: bool):
        rng, stage = self.rng, self.stage
        walls = [surfaces.plaster] * 5 + [surfaces.wallpaper] * 3
        walls += [surfaces.brick, surfaces.concrete, surfaces.wood, surfaces.tiles]
        wall = self.paint(self.choose(walls))
        floors = [surfaces.planks] * 4 + [surfaces.tiles] * 2 + [surfaces.carpet] * 2
        floors += [surfaces.marble, surfaces.concrete]
        floor = self.paint(floors[0] if sporty else self.choose(floors))
        tile_m = rng.uniform(1.2, 2.4)
        width, height = self.right - self.left, self.height
        x, y, z = [width, 0, 0], [0, height, 0], [0, 0, self.back + 2.0]
        if rng.random() < 0.5:  # planks across
            stage.quad([self.left, 0, -2], z, x, floor, tile_m)
        else:
            stage.quad([self.left, 0, -2], x, z, floor, tile_m)
        stage.quad([self.left, 0, self.back], x, y, wall, tile_m)
        side = wall if rng.random() < 0.7 else self.paint(surfaces.plaster)
        stage.quad([self.left, 0, -2], z, y, side, tile_m, (0.9, 0.9, 0.92))
        stage.quad([self.right, 0, -2], z, y, side, tile_m, (0.95, 0.94, 0.9))
        ceiling = self.paint(surfaces.plaster, np.full(3, rng.uniform(0.8, 0.97)))
        stage.quad([self.left, height, -2], x, z, ceiling, 3.0)
        if rng.random() < 0.75:  # skirting board
            tint = (0.9, 0.9, 0.9) if rng.random() < 0.6 else (0.25, 0.18, 0.12)
            for start, along in (
                ([self.left, 0, self.back - 0.02], x),
                ([self.left + 0.02, 0, -2], z),
                ([self.right - 0.02, 0, -2], z),
            ):
                stage.quad(start, along, [0, 0.1, 0], ceiling, 3.0, tint)
        if rng.random() < 0.2:  # panels up to the hip
            panel = self.paint(surfaces.wood)
            stage.quad([self.left, 0, self.back - 0.015], x, [0, 1, 0], panel, 1.0)
        if rng.random() < 0.15:
            beam = self.paint(surfaces.wood)
            for z in np.arange(0.5, self.back, rng.uniform(0.7, 1.4)):
                centre = [(self.left + self.right) / 2, height - 0.16, z]
                stage.box(centre, (width, 0.16, 0.14), beam, tile_m=1.0)

    # ------------------------------------------------------------ things on the wall

    def _spot(self, width: float) -> float:
        """x of a thing of this width at the back wall, preferably in view and free."""
        reach = 0.32 * self.back
        low = max(self.left + width / 2, -reach)
        high = min(self.right - width / 2, reach)
        best = (np.inf, 0.0)
        for x in self.rng.uniform(min(low, high), max(low, high), 6):
            start, end = x - width / 2, x + width / 2
            overlap = sum(max(0, min(end, b) - max(start, a)) for a, b in self.taken)
            best = min(best, (overlap, x))
        self.taken.append((best[1] - width / 2, best[1] + width / 2))
        return best[1]

    def _pictures(self, most: int):
        for _ in range(self.rng.integers(0, most + 1)):
            self._hang(surfaces.picture, (0.3, 1.3), (0.3, 1.0), (1.2, 1.7))

    def _hang(self, tile, widths, heights, centres, glow=0.0):
        """Something flat on the back wall; returns (x, y, width, height)."""
        rng = self.rng
        width, height = rng.uniform(*widths), rng.uniform(*heights)
        x, y = self._spot(width), rng.uniform(*centres) - height / 2
        corner = [x - width / 2, y, self.back - 0.03]
        surface = self.paint(tile)
        self.stage.quad(corner, [width, 0, 0], [0, height, 0], surface, glow=glow)
        return x, y, width, height

    def _window(self):
        rng, stage = self.rng, self.stage
        if rng.random() < 0.3:  # in a side wall
            wall = self.left + 0.02 if rng.random() < 0.5 else self.right - 0.02
            corner = [wall, rng.uniform(0.2, 1.0), self.back - rng.uniform(1.5, 3)]
            width, height = rng.uniform(0.9, 1.4), rng.uniform(1.0, 1.6)
            outlook = self.paint(surfaces.outlook)
            stage.quad(corner, [0, 0, width], [0, height, 0], outlook, glow=0.8)
            return
        x, y, width, height = self._hang(
            surfaces.outlook, (0.8, 2.2), (0.9, 1.7), (1.4, 1.7), glow=0.8
        )
        if rng.random() < 0.6:
            cloth = self.paint(surfaces.curtain)
            drop = y - 0.1 if rng.random() < 0.4 else 0.05
            up = [0, y + height + 0.15 - drop, 0]
            share = rng.uniform(0.15, 0.4)
            for left in (x - width / 2 - 0.15, x + width * (0.5 - share) + 0.15):
                corner = [left, drop, self.back - 0.1]
                stage.quad(corner, [width * share, 0, 0], up, cloth)
        elif rng.random() < 0.5:  # radiator
            white = self.paint(surfaces.corrugated)
            centre = [x, 0.12, self.back - 0.08]
            stage.box(centre, (width * 0.8, 0.55, 0.1), white, tile_m=0.6)

    def _door(self):
        surface, x = self.paint(surfaces.door), self._spot(0.9)
        corner = [x - 0.45, 0, self.back - 0.03]
        self.stage.quad(corner, [0.9, 0, 0], [0, 2.05, 0], surface)

    # --------------------------------------------------------------------- furniture

    def _place(self, width: float, depth: float, against_wall=0.75):
        """A centre on the floor for something of this size, and its yaw."""
        rng = self.rng
        if rng.random() < against_wall:
            return [self._spot(width), 0, self.back - depth / 2 - 0.03], 0.0
        low = min(self.near + depth / 2 + 0.3, self.back - depth)
        z = rng.uniform(low, self.back - depth / 2)
        return [self._spot(width), 0, z], rng.uniform(-0.6, 0.6)

    def _in_room(self, centre, yaw, x, y, z):
        """A point in the axes of a piece of furniture, in those of the room."""
        sine, cosine = np.sin(yaw), np.cos(yaw)
        return [
            centre[0] + cosine * x + sine * z,
            centre[1] + y,
            centre[2] - sine * x + cosine * z,
        ]

    def _boxes(self, centre, yaw, surface, boxes, **look):
        """Boxes (x, y, z, width, height, depth) of one piece of furniture."""
        for x, y, z, *size in boxes:
            base = self._in_room(centre, yaw, x, y, z)
            self.stage.box(base, size, surface, yaw, **look)

    def _cloth(self) -> int:
        return self.stage.surface(fabric.draw_tile(self.rng))

    def _sofa(self):
        rng = self.rng
        width = rng.choice([rng.uniform(0.8, 1.0), rng.uniform(1.6, 2.4)])
        depth = rng.uniform(0.8, 1)
        seat, back = rng.uniform(0.36, 0.46), rng.uniform(0.7, 0.95)
        centre, yaw = self._place(width, depth)
        cloth, arm = self._cloth(), rng.uniform(0.12, 0.25)
        shell = [
            (0, 0.06, 0, width, seat - 0.12, depth),
            (0, 0.1, depth / 2 - 0.1, width, back - 0.1, 0.2),
            (-width / 2 + arm / 2, 0.06, 0, arm, seat + 0.1, depth),
            (width / 2 - arm / 2, 0.06, 0, arm, seat + 0.1, depth),
        ]
        self._boxes(centre, yaw, cloth, shell, tile_m=0.6)
        count = max(1, round((width - 2 * arm) / 0.7))
        pillow = (width - 2 * arm) / count
        for number in range(count):
            x = -width / 2 + arm + pillow * (number + 0.5)
            seats = [(x, seat - 0.06, -0.08, pillow * 0.97, 0.14, depth - 0.25)]
            self._boxes(centre, yaw, cloth, seats, tile_m=0.6, tint=(1.06, 1.06, 1.06))
            if rng.random() < 0.4:
                cushion = [(x, seat + 0.08, depth / 2 - 0.28, 0.4, 0.36, 0.12)]
                self._boxes(centre, yaw, self._cloth(), cushion, tile_m=0.5)

    def _table(self, low=False):
        rng = self.rng
        width, depth = rng.uniform(0.7, 1.8), rng.uniform(0.5, 0.9)
        height = rng.uniform(0.35, 0.5) if low else rng.uniform(0.7, 0.78)
        centre, yaw = self._place(width, depth, against_wall=0.3)
        wood = self.paint(surfaces.wood)
        x, z = width / 2 - 0.05, depth / 2 - 0.05
        parts = [(0, height - 0.04, 0, width, 0.04, depth)]
        parts += [(a * x, 0, b * z, 0.05, height, 0.05) for a, b in CORNERS]
        self._boxes(centre, yaw, wood, parts, tile_m=1.0)
        for _ in range(rng.integers(0, 4)):
            offset = rng.uniform(-x, x), height, rng.uniform(-z, z)
            self._small_thing(self._in_room(centre, yaw, *offset))
        if not low:
            for _ in range(rng.integers(0, 4)):
                offset = rng.uniform(-x, x), 0, rng.choice([-1, 1]) * (z + 0.25)
                self._chair(self._in_room(centre, yaw, *offset))

    def _chair(self, centre=None):
        rng = self.rng
        yaw = rng.uniform(0, 2 * np.pi)
        if centre is None:
            centre, _ = self._place(0.45, 0.45, against_wall=0.2)
        wood = self.paint(surfaces.wood if rng.random() < 0.7 else surfaces.carpet)
        legs = [(a * 0.19, 0, b * 0.19, 0.035, 0.45, 0.035) for a, b in CORNERS]
        rest = [(0, 0.44, 0, 0.43, 0.04, 0.43), (0, 0.5, 0.2, 0.43, 0.42, 0.03)]
        self._boxes(centre, yaw, wood, legs + rest, tile_m=1.0)

    def _small_thing(self, centre):
        """A vase, book, box or bowl."""
        rng, stage = self.rng, self.stage
        surface = self.paint(surfaces.plaster, hsv(rng, ANY, (0, 0.8), (0.2, 0.95)))
        size = rng.uniform(0.05, 0.14)
        if rng.random() < 0.5:
            height, top = size * rng.uniform(0.8, 3), size * rng.uniform(0.3, 0.9)
            stage.column(centre, size / 2, height, surface, top)
        else:
            box = (size, size * rng.uniform(0.2, 1.6), size * 1.3)
            stage.box(centre, box, surface, rng.uniform(0, 3))

    def _bed(self):
        rng = self.rng
        width, length = rng.uniform(0.9, 1.9), 2.05
        centre, _ = self._place(width, length, against_wall=1.0)
        yaw = 0.0
        if rng.random() < 0.4:
            yaw, centre[2] = np.pi / 2, self.back - width / 2 - 0.03
        wood, linen, blanket = self.paint(surfaces.wood), self._cloth(), self._cloth()
        head = (0, 0.05, length / 2, width, rng.uniform(0.7, 1.2), 0.06)
        frame = [(0, 0.05, 0, width, 0.22, length), head]
        sheet = [(0, 0.27, 0, width * 0.97, 0.2, length * 0.97)]
        cover = [(0, 0.3, -0.3, width * 1.02, 0.22, length * 0.68)]
        self._boxes(centre, yaw, wood, frame, tile_m=1.0)
        self._boxes(centre, yaw, linen, sheet, tile_m=0.8)
        self._boxes(centre, yaw, blanket, cover, tile_m=0.9)
        for x in np.linspace(-width / 4, width / 4, 2 if width > 1.3 else 1):
            pillow = [(x, 0.46, length / 2 - 0.3, 0.55, 0.14, 0.4)]
            self._boxes(centre, yaw, linen, pillow, tile_m=0.6, tint=(1.1,) * 3)

    def _cupboard(self, height=None):
        rng = self.rng
        width, depth = rng.uniform(0.6, 2.0), rng.uniform(0.35, 0.6)
        if height is None:
            height = rng.choice([rng.uniform(0.5, 0.95), rng.uniform(1.6, 2.2)])
        centre, yaw = self._place(width, depth, against_wall=0.95)
        colour = surfaces.front_colour(rng, wooden=0.65)
        side = self.paint(surfaces.wood, colour)
        front = self.paint(surfaces.cabinet, colour)
        size = width, height, depth
        self.stage.box(centre, size, side, yaw, front=front, tile_m=1.0)
        if height < 1.2:
            for _ in range(rng.integers(0, 4)):
                x = rng.uniform(-width / 2 + 0.1, width / 2 - 0.1)
                self._small_thing(self._in_room(centre, yaw, x, height, 0))

    def _shelf(self):
        rng = self.rng
        width, depth, height = rng.uniform(0.6, 1.8), 0.3, rng.uniform(1.0, 2.2)
        centre, yaw = self._place(width, depth, against_wall=1.0)
        wood = self.paint(surfaces.wood)
        rows = max(2, round(height / 0.36))
        fronts = [self.paint(surfaces.books) for _ in range(2)]
        self.stage.box(centre, (width, height, depth), wood, yaw, tile_m=1.0)
        along, up = [width - 0.06, 0, 0], [0, height / rows - 0.06, 0]
        for row in range(rows):
            offset = -width / 2 + 0.03, row * height / rows + 0.03, -depth / 2 - 0.01
            corner = self._in_room(centre, yaw, *offset)
            self.stage.quad(corner, along, up, fronts[row % 2])

    def _plant(self):
        rng, stage = self.rng, self.stage
        (x, _, z), _ = self._place(0.5, 0.5, against_wall=0.6)
        height, size = rng.uniform(0.2, 0.4), rng.uniform(0.5, 1.4)
        pot = self.paint(surfaces.plaster, surfaces.wood_colour(rng))
        stage.column([x, 0, z], height * 0.35, height, pot, height * 0.45)
        leaf = self.paint(surfaces.leaves, str(rng.choice(["plant", "bush"])))
        for turn in rng.uniform(0, np.pi) + np.arange(2) * np.pi / 2:
            across = np.array([np.cos(turn), 0, np.sin(turn)]) * size
            origin = np.array([x, height - 0.05, z]) - across / 2
            stage.quad(origin, across, [0, size, 0], leaf)

    def _lamp(self):
        rng, stage = self.rng, self.stage
        (x, _, z), _ = self._place(0.4, 0.4, against_wall=0.6)
        metal = self.paint(surfaces.plaster, np.full(3, rng.uniform(0.05, 0.8)))
        warm = self.paint(surfaces.plaster, hsv(rng, 0.11, (0.05, 0.4), 1.0))
        if rng.random() < 0.55:  # standing
            shade_y = rng.uniform(1.3, 1.7)
            stage.column([x, 0, z], 0.14, 0.03, metal)
            stage.column([x, 0, z], 0.015, shade_y, metal)
        else:  # hanging
            lower = self.height - rng.uniform(0.5, 1.0)
            stage.column([x, lower, z], 0.008, self.height - lower, metal)
            shade_y = lower - 0.2
        radius, top = rng.uniform(0.14, 0.24), rng.uniform(0.06, 0.16)
        stage.column([x, shade_y, z], radius, 0.24, warm, top, glow=0.95)
        if rng.random() < 0.8:
            power = np.array([1, 0.8, 0.55]) * rng.uniform(0.3, 1.6)
            self.lamps.append(((x, shade_y, z - 0.3), power))

    def _rug(self):
        rng = self.rng
        width, depth = rng.uniform(1.2, 2.8), rng.uniform(0.9, 1.8)
        z = rng.uniform(self.near - 1, self.back - depth)
        corner = [self._spot(width) - width / 2, 0.012, z]
        cloth, tile_m = self._cloth(), rng.choice([0.7, 1.5])
        self.stage.quad(corner, [width, 0, 0], [0, 0, depth], cloth, tile_m)

    # -------------------------------------------------------------------------- rooms

    def _furnish(self, pieces, low: int, high: int):
        for _ in range(self.rng.integers(low, high + 1)):
            self.choose(pieces)()

    def _living_room(self):
        if self.rng.random() < 0.7:
            self._window()
        if self.rng.random() < 0.6:
            self._rug()
        if self.rng.random() < 0.75:
            self._sofa()
        self._pictures(4)
        if self.rng.random() < 0.3:
            self._cupboard(0.5)
            self._hang(surfaces.screen, (0.9, 1.4), (0.55, 0.8), (0.9, 1.2), glow=0.4)
        pieces = [self._plant, self._lamp, self._shelf, self._table, self._cupboard]
        self._furnish([*pieces, self._sofa, self._chair, self._door], 2, 6)

    def _bedroom(self):
        self._bed()
        if self.rng.random() < 0.6:
            self._window()
        self._pictures(3)
        pieces = [self._cupboard, self._lamp, self._chair, self._rug, self._plant]
        self._furnish([*pieces, self._shelf, self._door], 2, 5)

    def _kitchen(self):
        rng, stage = self.rng, self.stage
        colour = surfaces.front_colour(rng, wooden=0.5)
        side = self.paint(surfaces.wood, colour)
        fronts = [self.paint(surfaces.cabinet, colour) for _ in range(2)]
        top = self.paint(surfaces.marble)
        unit, count = 0.6, int(rng.integers(3, 8))
        left = self._spot(unit * count) - unit * count / 2
        splash = self.paint(surfaces.tiles)
        corner = [left, 0.9, self.back - 0.015]
        stage.quad(corner, [unit * count, 0, 0], [0, 0.6, 0], splash, 0.6)
        for number in range(count):
            x = left + unit * (number + 0.5)
            if rng.random() < 0.12:  # a tall cupboard or the refrigerator
                grey = np.full(3, rng.uniform(0.55, 0.95))
                steel, size = self.paint(surfaces.plaster, grey), (unit, 2.0, 0.62)
                front = fronts[0] if rng.random() < 0.5 else None
                stage.box([x, 0, self.back - 0.33], size, steel, front=front)
                continue
            front = self.choose(fronts)
            stage.box([x, 0, self.back - 0.3], (unit, 0.87, 0.6), side, front=front)
            if rng.random() < 0.7:
                size = (unit, 0.7, 0.35)
                stage.box([x, 1.45, self.back - 0.18], size, side, front=front)
            if rng.random() < 0.5:
                self._small_thing([x, 0.91, self.back - rng.uniform(0.15, 0.5)])
            stage.box([x, 0.87, self.back - 0.31], (unit, 0.04, 0.64), top, tile_m=0.8)
        if rng.random() < 0.5:
            self._window()
        self._furnish([self._table, self._chair, self._lamp, self._plant], 0, 3)

    def _office(self):
        if self.rng.random() < 0.7:
            self._window()
        self._pictures(2)
        if self.rng.random() < 0.5:
            self._hang(surfaces.screen, (0.9, 2.2), (0.6, 1.2), (1.3, 1.6), glow=0.5)
        pieces = [self._table, self._shelf, self._cupboard, self._chair]
        self._furnish([*pieces, self._chair, self._plant, self._door], 3, 7)

    def _hall(self):
        """A gymnasium, a stage or a lobby: lines on the floor, columns, wall bars."""
        rng, stage = self.rng, self.stage
        self.height += 2
        for _ in range(rng.integers(0, 6)):
            line = self.paint(surfaces.plaster, hsv(rng, ANY, (0, 0.9), 0.9))
            if rng.random() < 0.5:
                corner = [self.left, 0.006, rng.uniform(2, self.back)]
                along, up = [self.right - self.left, 0, 0], [0, 0, 0.06]
            else:
                corner = [rng.uniform(self.left, self.right), 0.006, 0]
                along, up = [0.06, 0, 0], [0, 0, self.back]
            stage.quad(corner, along, up, line)
        if rng.random() < 0.5:
            wood, x = self.paint(surfaces.wood), self._spot(1.0)
            for y in np.arange(0.15, 2.4, 0.18):
                stage.box([x, y, self.back - 0.1], (1.0, 0.035, 0.035), wood)
            for side in (-0.5, 0.5):
                stage.box([x + side, 0, self.back - 0.1], (0.06, 2.4, 0.1), wood)
        if rng.random() < 0.5:
            marble = rng.random() < 0.5
            stone = self.paint(surfaces.marble if marble else surfaces.plaster)
            for x in np.arange(self.left + 0.5, self.right, rng.uniform(1.2, 2.5)):
                stage.column([x, 0, self.back - 0.3], rng.uniform(0.12, 0.25), 6, stone)
        if rng.random() < 0.4:
            cloth, along = self.paint(surfaces.curtain), [self.right - self.left, 0, 0]
            corner = [self.left, 0, self.back - 0.05]
            stage.quad(corner, along, [0, 5, 0], cloth, rng.uniform(2, 4))
        for _ in range(rng.integers(0, 3)):
            self._window()
        self._pictures(2)
        self._furnish([self._chair, self._crates], 0, 3)

    def _crates(self):
        rng = self.rng
        for _ in range(rng.integers(1, 5)):
            size = rng.uniform(0.25, 0.9, 3)
            centre, yaw = self._place(size[0], size[2], against_wall=0.4)
            looks = [self._cloth(), self.paint(surfaces.wood)]
            looks.append(self.paint(surfaces.abstract))
            self.stage.box(centre, size, self.choose(looks), yaw, tile_m=0.8)

    def _bare(self):
        self._pictures(3)
        pieces = [self._crates, self._chair, self._plant, self._window, self._door]
        self._furnish(pieces, 0, 3)
