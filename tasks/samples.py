"""Generated stand-ins for Text and Image, drawn from a fixed seed, so that everything runs without a file.

They are lessons, not benchmarks: a small model learns them within minutes, but the bytes of an input
without their order do not tell the class. In a review, praise is often wrapped in a negation or in
somebody else's opinion; in a picture, brightness and contrast vary more within a class than between.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tasks.core import Progress, chunk_seed, quiet

_TEXT_SEED, _IMAGE_SEED = 1, 2

# --- reviews -----------------------------------------------------------------------------------------------------

REVIEW_SIZES = {"train": 16_000, "test": 1_000}
_WORDS: Mapping[str, tuple[str, ...]] = {
    "part": ("story", "plot", "ending", "dialogue", "music", "acting", "pacing", "lead", "script", "camera work"),
    "good": ("good", "lovely", "gripping", "clever", "moving", "superb", "fresh", "honest", "delightful", "vivid"),
    "bad": ("bad", "dreadful", "tedious", "clumsy", "hollow", "stale", "lifeless", "awful", "feeble", "dull"),
    "won": ("loved", "enjoyed", "admired", "savoured"),
    "lost": ("hated", "endured", "regretted", "disliked"),
    "who": ("my brother", "the critic", "a friend", "the poster", "everyone at work", "the trailer"),
    "much": ("really", "quite", "truly", "rather", "simply"),
    "place": ("Lisbon", "a small town", "the desert", "an old hotel", "Norway", "the suburbs"),
    "year": ("1954", "1968", "1977", "1983", "1991", "2002"),
}
# Patterns and their weights. {=} and {v}: an adjective or verb of the writer's opinion; {!} and {w}: of its opposite.
_OPINIONS = (
    ("The {part} is {much} {=}.", 4),
    ("I {v} the {part}.", 3),
    ("What a {=} {part}, what a {=} evening.", 2),
    ("The {part} was not {!} at all.", 2),
    ("I never {w} the {part}.", 1),
    ("{who} called the {part} {!}, but it is {=}.", 2),
    ("I had feared a {!} {part}; no, it is {much} {=}.", 1),
)
_FILLERS = (
    "It was shot in {place} in {year}.",
    "{who} gave me the disc.",
    "The {part} is by the same team as in {year}.",
    "I saw it in {place} on a rainy evening.",
    "{who} saw the {part} in quite another light.",
)
_FILLER_SHARE, _DISSENT_SHARE = 0.25, 0.08  # sentences without an opinion; opinions against the verdict


def reviews(progress: Progress = quiet) -> dict[str, list[tuple[bytes, int]]]:
    """Film reviews (text, verdict) per split: 0 = negative, 1 = positive, equally many, 4 to 40 sentences."""
    out: dict[str, list[tuple[bytes, int]]] = {}
    for chunk, (split, n) in enumerate(REVIEW_SIZES.items()):
        rng = chunk_seed(_TEXT_SEED, chunk)
        verdicts = rng.permutation(np.arange(n) % 2)
        out[split] = [(_review(rng, int(verdict)), int(verdict)) for verdict in verdicts]
        progress(f"generating {split} reviews", n, n)
    return out


def _review(rng: np.random.RandomState, verdict: int) -> bytes:
    length = 4 + int(rng.geometric(0.12)) % 37
    return " ".join(_sentence(rng, verdict) for _ in range(length)).encode()


def _sentence(rng: np.random.RandomState, verdict: int) -> str:
    if rng.rand() < _FILLER_SHARE:
        pattern, opinion = _FILLERS[rng.randint(len(_FILLERS))], verdict
    else:
        weights = np.array([weight for _, weight in _OPINIONS], float)
        pattern = _OPINIONS[rng.choice(len(_OPINIONS), p=weights / weights.sum())][0]
        opinion = verdict ^ int(rng.rand() < _DISSENT_SHARE)
    kinds = {"=": ("bad", "good")[opinion], "!": ("good", "bad")[opinion]}
    kinds |= {"v": ("lost", "won")[opinion], "w": ("won", "lost")[opinion]}
    parts = pattern.replace("}", "{").split("{")  # text, slot, text, slot, ..., text
    for i in range(1, len(parts), 2):
        words = _WORDS[kinds.get(parts[i], parts[i])]
        parts[i] = words[rng.randint(len(words))]
    sentence = "".join(parts)
    return sentence[0].upper() + sentence[1:]


# --- pictures ----------------------------------------------------------------------------------------------------

PICTURE_SIZES = {"train": 10_000, "validation": 500, "test": 1_000}
PICTURE_CLASSES = (
    "disc", "ring", "square", "triangle", "cross", "level bars", "upright bars", "slanted bars", "checks", "dots",
)  # fmt: skip


def pictures(progress: Progress = quiet) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Gray pictures uint8 [N, 32, 32] and classes uint8 [N] per split, the classes equally many."""
    out = {}
    for chunk, (split, n) in enumerate(PICTURE_SIZES.items()):
        rng = chunk_seed(_IMAGE_SEED, chunk)
        labels = rng.permutation(np.arange(n) % len(PICTURE_CLASSES)).astype(np.uint8)
        out[split] = (np.stack([_picture(rng, int(label)) for label in labels]), labels)
        progress(f"generating {split} pictures", n, n)
    return out


def _picture(rng: np.random.RandomState, label: int) -> np.ndarray:
    """One figure or grating, of any place, size, phase and polarity, on a shaded, noisy ground."""
    y, x = np.mgrid[:32, :32].astype(np.float64)
    cy, cx, radius = rng.uniform(10, 22), rng.uniform(10, 22), rng.uniform(6, 10)
    period, phase = rng.uniform(5, 10), rng.uniform(0, 2 * np.pi)
    dy, dx = y - cy, x - cx
    wave = 2 * np.pi / period
    name = PICTURE_CLASSES[label]
    if name == "disc":
        figure = np.hypot(dy, dx) < radius
    elif name == "ring":
        figure = np.abs(np.hypot(dy, dx) - radius) < radius * 0.25
    elif name == "square":
        figure = np.maximum(np.abs(dy), np.abs(dx)) < radius * 0.9
    elif name == "triangle":
        figure = (dy < radius * 0.7) & (dy > 2 * np.abs(dx) - radius * 1.3)
    elif name == "cross":
        figure = (np.minimum(np.abs(dy), np.abs(dx)) < radius * 0.25) & (
            np.maximum(np.abs(dy), np.abs(dx)) < radius * 1.3
        )
    elif name == "level bars":
        figure = np.sin(wave * y + phase) > 0
    elif name == "upright bars":
        figure = np.sin(wave * x + phase) > 0
    elif name == "slanted bars":
        figure = np.sin(wave * (x + y * rng.choice([-1, 1])) / np.sqrt(2) + phase) > 0
    elif name == "checks":
        figure = np.sin(wave * x + phase) * np.sin(wave * y + rng.uniform(0, 2 * np.pi)) > 0
    else:
        figure = np.sin(wave * x + phase) + np.sin(wave * y + rng.uniform(0, 2 * np.pi)) > 0.9
    contrast = rng.uniform(50, 110) * rng.choice([-1, 1])
    level = rng.uniform(90, 165)
    shade = rng.uniform(-1, 1) * (y - 15.5) + rng.uniform(-1, 1) * (x - 15.5)
    gray = level + contrast * (figure - 0.5) + shade + rng.normal(0, 8, (32, 32))
    return np.clip(np.rint(gray), 0, 255).astype(np.uint8)


def halve(images: np.ndarray) -> np.ndarray:
    """uint8 [N, 2R, 2R] to [N, R, R]: means of 2 x 2 pixels, rounded to nearest (halves up)."""
    n, rows, columns = images.shape
    cells = images.reshape(n, rows // 2, 2, columns // 2, 2).astype(np.uint16)
    return ((cells.sum((2, 4)) + 2) // 4).astype(np.uint8)
