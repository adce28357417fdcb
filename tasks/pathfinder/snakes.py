"""The growth of snakes: paddle by paddle, in many images at the same time, on masks of the occupied cells.

Pairs of long snakes are placed first, distractors into the free room. Only cells and states are stored; the lines are
drawn when it is known which snakes are complete.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tasks.pathfinder.settings import SNAKE_TRIES, TRIES
from tasks.pathfinder.tables import COLLISION, DEGREES, OCCUPIED, GeneratorTables

_DEAD_END = 1e-4 * 255  # a circle with less total weight of free cells is a dead end


@dataclasses.dataclass(frozen=True)
class OccupancyMask:
    """The occupied cells of n images, in one flat array each.

    mask:    uint8 [n * area], paddles with their margins
    dilated: uint8 [n * area], the same, dilated by the margin: the lower its value, the more likely is a head there
    """

    mask: np.ndarray
    dilated: np.ndarray

    @classmethod
    def empty(cls, t: GeneratorTables, n: int) -> OccupancyMask:
        return cls(np.tile(t.empty_mask, n), np.tile(t.empty_dilated, n))

    def take(self, t: GeneratorTables, rows: np.ndarray) -> OccupancyMask:
        """Return a copy of some images."""
        return OccupancyMask(*(a.reshape(-1, t.area)[rows].reshape(-1) for a in (self.mask, self.dilated)))

    def put(self, t: GeneratorTables, rows: np.ndarray, other: OccupancyMask, other_rows: np.ndarray) -> None:
        """Replace some images by those of another mask."""
        for target, source in ((self.mask, other.mask), (self.dilated, other.dilated)):
            target.reshape(-1, t.area)[rows] = source.reshape(-1, t.area)[other_rows]

    def stamp(self, t: GeneratorTables, cell: np.ndarray, state: np.ndarray) -> None:
        """Add one paddle per anchor in `cell`, each in another image."""
        t.mask.max_into(self.mask, cell, state)
        t.dilated.max_into(self.dilated, cell, state)


@dataclasses.dataclass(frozen=True)
class Paths:
    """The paddles of two snakes in n images.

    cell:  int64 [n, 2, C], anchors: the tail of a first paddle, the head of a later one
    state: int64 [n, 2, C]
    """

    cell: np.ndarray
    state: np.ndarray
    occupied: OccupancyMask


def grow_targets(t: GeneratorTables, n: int, rng: np.random.RandomState) -> Paths:
    """Return n pairs of complete snakes: the first n of as many rounds of attempts as necessary."""
    rounds: list[Paths] = []
    while sum(len(p.cell) for p in rounds) < n:
        rounds.append(_grow_pairs(t, rng))
    cell, state = (np.concatenate(parts)[:n] for parts in ([p.cell for p in rounds], [p.state for p in rounds]))
    masks = [p.occupied.mask for p in rounds], [p.occupied.dilated for p in rounds]
    return Paths(cell, state, OccupancyMask(*(np.concatenate(parts)[: n * t.area] for parts in masks)))


def _grow_pairs(t: GeneratorTables, rng: np.random.RandomState) -> Paths:
    """Grow `Setting.attempts` pairs, and return those that are complete."""
    count, length = t.setting.attempts, t.setting.contour_length
    cell = np.zeros((2, length, count), np.int64)
    state = np.zeros((2, length, count), np.int64)
    tails, degrees = _pair_seeds(t, count, rng)
    pivots = []
    for snake in range(2):
        cell[snake, 0] = tails[snake, 0] * t.frame + tails[snake, 1]
        state[snake, 0] = t.steps + degrees[snake]
        pivots.append(np.stack([t.seed_pivot[axis, degrees[snake], tails[snake, axis]] for axis in range(2)]))

    occupied = OccupancyMask.empty(t, count)
    live = np.arange(count)
    for k in range(1, length):
        for snake in range(2):
            before = state[snake, k - 1]
            pivot, choice = _next_paddle(t, occupied, live * t.area, pivots[snake], before, rng)
            grown = choice >= 0
            live, pivot, choice = live[grown], pivot[:, grown], choice[grown]
            cell, state = cell[:, :, grown], state[:, :, grown]
            pivots[1 - snake] = pivots[1 - snake][:, grown]
            pivots[snake] = pivot
            # The paddle before the new one becomes an obstacle; the last paddle of a snake is none for that snake.
            occupied.stamp(t, live * t.area + cell[snake, k - 1], state[snake, k - 1])
            cell[snake, k] = pivot[0] * t.frame + pivot[1] + t.jump[choice]
            state[snake, k] = choice
    # As in the reference, the last paddle of the first snake never becomes an obstacle.
    occupied.stamp(t, live * t.area + cell[1, -1], state[1, -1])
    apart = _apart(t, cell)
    cell, state = (np.moveaxis(a[:, :, apart], 2, 0) for a in (cell, state))
    return Paths(cell, state, occupied.take(t, live[apart]))


def _apart(t: GeneratorTables, cell: np.ndarray) -> np.ndarray:
    """Return for each pair whether its snakes keep `Setting.clearance`: cells [2, C, n] to bool [n]."""
    one, other = np.stack(np.divmod(cell, t.frame), -1)  # [C, n, 2]
    gap = ((one[:, None] - other[None]) ** 2).sum(-1)
    return gap.min((0, 1)) >= t.setting.clearance**2


def _pair_seeds(t: GeneratorTables, count: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Draw the first paddles of both snakes: tails (y, x) in the frame [2, 2, count], indices of degrees [2, count].

    The first snake starts in the middle of the image. The second starts at a distance, and its place is not tested.
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
    t: GeneratorTables,
    occupied: OccupancyMask,
    frames: np.ndarray,
    pivot: np.ndarray,
    state: np.ndarray,
    rng: np.random.RandomState,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one more paddle for each of n snakes.

    Returns:
      the pivots, int64 [2, n], around which the paddles end, and the index of the cell of the circle where they end,
      int64 [n], -1 where no paddle fits
    """
    pivot = np.stack([t.next_pivot[axis, state, pivot[axis]] for axis in range(2)])
    center = frames + pivot[0] * t.frame + pivot[1]
    free = (255 - occupied.dilated[center[:, None] + t.jump]).astype(np.float32)
    mass = np.cumsum(free * t.weight[state], axis=1)
    total = mass[:, -1]
    choice = np.full(len(state), -1)
    open_ = np.flatnonzero(total >= _DEAD_END)
    for _ in range(TRIES):
        drawn = rng.random_sample(len(open_)) * total[open_]
        step = np.argmax(mass[open_] > drawn[:, None], axis=1)
        cells = (center[open_] + t.jump[step])[:, None] + t.core.offset[step]
        fits = (occupied.mask[cells].astype(np.int16) + t.core.value[step]).max(1) < COLLISION
        choice[open_[fits]] = step[fits]
        open_ = open_[~fits]
    return pivot, choice


# ---- distractors


def add_distractors(
    t: GeneratorTables, occupied: OccupancyMask, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Add distractors where there is room.

    Returns:
      their lines, uint8 [n * area], and their number in each image, uint8 [n]
    """
    n = len(occupied.mask) // t.area
    lines = np.zeros(n * t.area, np.uint8)
    drawn = np.zeros(n, np.uint8)
    for _ in range(t.setting.distractors):
        waiting = np.arange(n)
        for _ in range(SNAKE_TRIES):
            done = _try_distractor(t, occupied, lines, waiting, rng)
            drawn[done] += 1
            waiting = np.setdiff1d(waiting, done, assume_unique=True)
    return lines, drawn


def _try_distractor(
    t: GeneratorTables, occupied: OccupancyMask, lines: np.ndarray, rows: np.ndarray, rng: np.random.RandomState
) -> np.ndarray:
    """Try one distractor in each of `rows`; update mask and lines of those that succeed, and return these rows."""
    rows, tail, degree = _distractor_seeds(t, occupied, rows, rng)
    attempt = occupied.take(t, rows)  # a copy: an attempt that fails must change nothing
    live = np.arange(len(rows))
    cell = (tail[0] * t.frame + tail[1])[None]
    state = (t.steps + degree)[None]
    pivot = np.stack([t.seed_pivot[axis, degree, tail[axis]] for axis in range(2)])
    for _ in range(1, t.setting.distractor_length):
        pivot, choice = _next_paddle(t, attempt, live * t.area, pivot, state[-1], rng)
        grown = choice >= 0
        live, pivot, choice = live[grown], pivot[:, grown], choice[grown]
        cell, state = cell[:, grown], state[:, grown]
        attempt.stamp(t, live * t.area + cell[-1], state[-1])
        cell = np.concatenate([cell, (pivot[0] * t.frame + pivot[1] + t.jump[choice])[None]])
        state = np.concatenate([state, choice[None]])
    attempt.stamp(t, live * t.area + cell[-1], state[-1])
    rows = rows[live]
    occupied.put(t, rows, attempt, live)
    for paddle_cell, paddle_state in zip(cell, state, strict=True):
        t.line.max_into(lines, rows * t.area + paddle_cell, paddle_state)
    return rows


def _distractor_seeds(
    t: GeneratorTables, occupied: OccupancyMask, rows: np.ndarray, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw first paddles of distractors: rows that have one, tails [2, rows] in the frame, indices of degrees [rows].

    A row without a free place fails at once. Another angle is tried if the paddle would leave the image.
    """
    drawn = []
    for _ in range(TRIES):
        degree = rng.randint(0, len(DEGREES), len(rows))
        chance = rng.random_sample(len(rows))
        tail = np.zeros((2, len(rows)), np.int64)
        free = np.zeros(len(rows), bool)
        for kernel, cells in enumerate(t.kernels):
            selected = np.flatnonzero(t.kernel[degree] == kernel)
            if len(selected):
                tail[:, selected], free[selected] = _free_place(t, occupied, rows[selected], cells, chance[selected])
        rows, tail, degree = rows[free], tail[:, free], degree[free]
        inside = np.ones(len(rows), bool)
        for axis in range(2):
            for table in (t.seed_head, t.seed_pivot):
                position = table[axis, degree, tail[axis]] - t.pad
                inside &= (position >= 0) & (position < t.setting.resolution)
        drawn.append((rows[inside], tail[:, inside], degree[inside]))
        rows = rows[~inside]
    row, tail, degree = (np.concatenate(parts, -1) for parts in zip(*drawn, strict=True))
    return row, tail, degree


def _free_place(
    t: GeneratorTables, occupied: OccupancyMask, rows: np.ndarray, kernel: np.ndarray, chance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Choose a pixel around which no cell of the kernel is occupied, all with the same probability.

    Cells outside the image count as free, its outermost ones as occupied.

    Args:
      kernel: cells (dy, dx), int64 [cells, 2]
      chance: uniform random numbers, float64 [rows]

    Returns:
      (y, x) in the frame, int64 [2, rows], and whether there is such a pixel, bool [rows]
    """
    size, pad = t.setting.resolution, t.pad
    inside = slice(pad, pad + size)
    blocked = np.zeros((len(rows), t.frame, t.frame), bool)
    blocked[:, inside, inside] = True
    core = slice(pad + 1, pad + size - 1)
    blocked[:, core, core] = occupied.mask.reshape(-1, t.frame, t.frame)[rows, core, core] >= OCCUPIED
    taken = np.zeros((len(rows), size, size), bool)
    for y, x in kernel:
        taken |= blocked[:, pad + y : pad + y + size, pad + x : pad + x + size]
    rank = np.cumsum(~taken.reshape(len(rows), -1), axis=1, dtype=np.int32)
    count = rank[:, -1]
    index = np.argmax(rank > np.floor(chance * count)[:, None], axis=1)
    return np.stack(np.divmod(index, size)) + pad, count > 0
