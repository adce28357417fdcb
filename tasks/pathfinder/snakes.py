"""How Pathfinder's snakes grow: paddle by paddle, many images side by side, on masks of what is taken.

Pairs of long snakes come first, distractors into the room that is left. Only cells and states are kept; the lines are
drawn when it is known which snakes arrived.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tasks.pathfinder.settings import SNAKE_TRIES, TRIES
from tasks.pathfinder.tables import COLLISION, DEGREES, OCCUPIED, Tables

_DEAD_END = 1e-4 * 255  # a circle with less free and smooth room than this


@dataclasses.dataclass(frozen=True)
class Ground:
    """Where paddles lie, of n images in one flat array each.

    mask: uint8 [n * area], paddles with their margins
    wide: uint8 [n * area], the same, dilated by the margin: a head lies where little of it is
    """

    mask: np.ndarray
    wide: np.ndarray

    @classmethod
    def empty(cls, t: Tables, n: int) -> Ground:
        return cls(np.tile(t.empty_mask, n), np.tile(t.empty_wide, n))

    def take(self, t: Tables, rows: np.ndarray) -> Ground:
        return Ground(*(a.reshape(-1, t.area)[rows].reshape(-1) for a in (self.mask, self.wide)))

    def put(self, t: Tables, rows: np.ndarray, other: Ground, of: np.ndarray) -> None:
        for mine, theirs in ((self.mask, other.mask), (self.wide, other.wide)):
            mine.reshape(-1, t.area)[rows] = theirs.reshape(-1, t.area)[of]

    def press(self, t: Tables, cell: np.ndarray, state: np.ndarray) -> None:
        t.mask.press(self.mask, cell, state)
        t.wide.press(self.wide, cell, state)


@dataclasses.dataclass(frozen=True)
class Paths:
    """Paddles of two snakes: anchors (a first paddle's tail, a later one's head) and states, [n, 2, C] each."""

    cell: np.ndarray
    state: np.ndarray
    ground: Ground


def grow_targets(t: Tables, n: int, rng: np.random.RandomState) -> Paths:
    """n pairs of whole snakes: the first n of as many rounds of attempts as it takes."""
    found: list[Paths] = []
    while sum(len(p.cell) for p in found) < n:
        found.append(_grow_pairs(t, rng))
    ground = Ground(
        *(np.concatenate([getattr(p.ground, name) for p in found])[: n * t.area] for name in ("mask", "wide"))
    )
    return Paths(np.concatenate([p.cell for p in found])[:n], np.concatenate([p.state for p in found])[:n], ground)


def _grow_pairs(t: Tables, rng: np.random.RandomState) -> Paths:
    """`Setting.attempts` pairs, grown until they are whole or fail; the whole ones."""
    count, length = t.setting.attempts, t.setting.contour_length
    cell = np.zeros((2, length, count), np.int64)
    state = np.zeros((2, length, count), np.int64)
    tails, degrees = _pair_seeds(t, count, rng)
    pivots = []
    for snake in range(2):
        cell[snake, 0] = tails[snake, 0] * t.frame + tails[snake, 1]
        state[snake, 0] = t.steps + degrees[snake]
        pivots.append(np.stack([t.seed_pivot[axis, degrees[snake], tails[snake, axis]] for axis in range(2)]))

    ground = Ground.empty(t, count)
    live = np.arange(count)
    for k in range(1, length):
        for snake in range(2):
            before = state[snake, k - 1]
            pivot, choice = _next_paddle(t, ground, live * t.area, pivots[snake], before, rng)
            whole = choice >= 0
            live, pivot, choice = live[whole], pivot[:, whole], choice[whole]
            cell, state = cell[:, :, whole], state[:, :, whole]
            pivots[1 - snake] = pivots[1 - snake][:, whole]
            pivots[snake] = pivot
            # The paddle before last is an obstacle from now on; a snake's last paddle never is one for itself.
            ground.press(t, live * t.area + cell[snake, k - 1], state[snake, k - 1])
            cell[snake, k] = pivot[0] * t.frame + pivot[1] + t.jump[choice]
            state[snake, k] = choice
    # As in the reference, the first snake's last paddle stays unprotected.
    ground.press(t, live * t.area + cell[1, -1], state[1, -1])
    apart = _apart(t, cell)
    cell, state = (np.moveaxis(a[:, :, apart], 2, 0) for a in (cell, state))
    return Paths(cell, state, ground.take(t, live[apart]))


def _apart(t: Tables, cell: np.ndarray) -> np.ndarray:
    """Whether no tail or head of one snake is nearer than `Setting.clearance` to one of the other: [2, C, n] to [n]."""
    one, other = np.stack(np.divmod(cell, t.frame), -1)  # [C, n, 2]
    gap = ((one[:, None] - other[None]) ** 2).sum(-1)
    return gap.min((0, 1)) >= t.setting.clearance**2


def _pair_seeds(t: Tables, count: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Tails (y, x), in the frame, and degrees' indices of two first paddles: [2, 2, count] and [2, count].

    The first fits into the middle of the image, the second starts at a distance and is not tested.
    """
    border, resolution = t.setting.border, t.setting.resolution
    low = np.array([border - k.min(0) for k in t.kernels])
    room = np.array([resolution - border - k.max(0) for k in t.kernels]) - low
    fits = (t.kernel >= 0) & (room[t.kernel] > 0).all(1)
    first = rng.choice(np.flatnonzero(fits), count)
    kernel = t.kernel[first]
    tail = (low[kernel] + np.floor(rng.random_sample((count, 2)) * room[kernel])).T
    degrees = np.stack([first, rng.randint(0, 360, count)])
    away = t.seed_distance[:, rng.randint(0, 360, count)]
    other = np.rint(tail + away)
    return np.stack([tail, other]).astype(np.int64) + t.pad, degrees


def _next_paddle(
    t: Tables, ground: Ground, frames: np.ndarray, pivot: np.ndarray, state: np.ndarray, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """One more paddle for each of n snakes: the pivots [2, n] around which it ends, and the chosen cell of the circle
    [n], -1 where no paddle fits."""
    pivot = np.stack([t.next_pivot[axis, state, pivot[axis]] for axis in range(2)])
    center = frames + pivot[0] * t.frame + pivot[1]
    free = (255 - ground.wide[center[:, None] + t.jump]).astype(np.float32)
    mass = np.cumsum(free * t.weight[state], axis=1)
    total = mass[:, -1]
    choice = np.full(len(state), -1)
    open_ = np.flatnonzero(total >= _DEAD_END)
    for _ in range(TRIES):
        drawn = rng.random_sample(len(open_)) * total[open_]
        step = np.argmax(mass[open_] > drawn[:, None], axis=1)
        cells = (center[open_] + t.jump[step])[:, None] + t.core.offset[step]
        fits = (ground.mask[cells].astype(np.int16) + t.core.value[step]).max(1) < COLLISION
        choice[open_[fits]] = step[fits]
        open_ = open_[~fits]
    return pivot, choice


# ---- distractors


def add_distractors(t: Tables, ground: Ground, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Draws distractors where there is room; their lines uint8 [n * area], and how many, uint8 [n]."""
    n = len(ground.mask) // t.area
    lines = np.zeros(n * t.area, np.uint8)
    drawn = np.zeros(n, np.uint8)
    for _ in range(t.setting.distractors):
        waiting = np.arange(n)
        for _ in range(SNAKE_TRIES):
            done = _try_distractor(t, ground, lines, waiting, rng)
            drawn[done] += 1
            waiting = np.setdiff1d(waiting, done, assume_unique=True)
    return lines, drawn


def _try_distractor(
    t: Tables, ground: Ground, lines: np.ndarray, rows: np.ndarray, rng: np.random.RandomState
) -> np.ndarray:
    """One attempt in each of `rows`; changes ground and lines of those that succeed, and returns them."""
    rows, tail, degree = _distractor_seeds(t, ground, rows, rng)
    own = ground.take(t, rows)  # an attempt that fails leaves no trace
    live = np.arange(len(rows))
    cell = (tail[0] * t.frame + tail[1])[None]
    state = (t.steps + degree)[None]
    pivot = np.stack([t.seed_pivot[axis, degree, tail[axis]] for axis in range(2)])
    for _ in range(1, t.setting.distractor_length):
        pivot, choice = _next_paddle(t, own, live * t.area, pivot, state[-1], rng)
        whole = choice >= 0
        live, pivot, choice = live[whole], pivot[:, whole], choice[whole]
        cell, state = cell[:, whole], state[:, whole]
        own.press(t, live * t.area + cell[-1], state[-1])
        cell = np.concatenate([cell, (pivot[0] * t.frame + pivot[1] + t.jump[choice])[None]])
        state = np.concatenate([state, choice[None]])
    own.press(t, live * t.area + cell[-1], state[-1])
    rows = rows[live]
    ground.put(t, rows, own, live)
    for paddle, its_state in zip(cell, state, strict=True):
        t.line.press(lines, rows * t.area + paddle, its_state)
    return rows


def _distractor_seeds(
    t: Tables, ground: Ground, rows: np.ndarray, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First paddles of distractors: the rows that have one, tails [2, rows] in the frame, degrees' indices [rows].

    A row without a free place fails at once; one whose paddle would leave the image takes another angle.
    """
    found = []
    for _ in range(TRIES):
        degree = rng.randint(0, len(DEGREES), len(rows))
        chance = rng.random_sample(len(rows))
        tail = np.zeros((2, len(rows)), np.int64)
        free = np.zeros(len(rows), bool)
        for kernel, cells in enumerate(t.kernels):
            of = np.flatnonzero(t.kernel[degree] == kernel)
            if len(of):
                tail[:, of], free[of] = _free_place(t, ground, rows[of], cells, chance[of])
        rows, tail, degree = rows[free], tail[:, free], degree[free]
        inside = np.ones(len(rows), bool)
        for axis in range(2):
            for table in (t.seed_head, t.seed_pivot):
                place = table[axis, degree, tail[axis]] - t.pad
                inside &= (place >= 0) & (place < t.setting.resolution)
        found.append((rows[inside], tail[:, inside], degree[inside]))
        rows = rows[~inside]
    row, tail, degree = (np.concatenate(parts, -1) for parts in zip(*found, strict=True))
    return row, tail, degree


def _free_place(
    t: Tables, ground: Ground, rows: np.ndarray, kernel: np.ndarray, chance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A pixel around which no cell of the kernel is occupied, each as likely as the others: (y, x) [2, rows] in the
    frame, and whether there is any [rows]. Cells outside the image count as free, its outermost ones as occupied."""
    size, pad = t.setting.resolution, t.pad
    inside = slice(pad, pad + size)
    occupied = np.zeros((len(rows), t.frame, t.frame), bool)
    occupied[:, inside, inside] = True
    core = slice(pad + 1, pad + size - 1)
    occupied[:, core, core] = ground.mask.reshape(-1, t.frame, t.frame)[rows, core, core] >= OCCUPIED
    taken = np.zeros((len(rows), size, size), bool)
    for y, x in kernel:
        taken |= occupied[:, pad + y : pad + y + size, pad + x : pad + x + size]
    rank = np.cumsum(~taken.reshape(len(rows), -1), axis=1, dtype=np.int32)
    count = rank[:, -1]
    place = np.argmax(rank > np.floor(chance * count)[:, None], axis=1)
    return np.stack(np.divmod(place, size)) + pad, count > 0
