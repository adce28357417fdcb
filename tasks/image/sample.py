"""The generated sample of Image: gray images of shapes and gratings.

A small model learns the sample within minutes, but gray levels without their places do not tell the class: brightness
and contrast vary more within a class than between classes.
"""

from __future__ import annotations

import numpy as np

from tasks.core import Progress, chunk_rng, no_progress

SEED = 2
SIZES = {"train": 10_000, "validation": 500, "test": 1_000}
CLASSES = (
    "disc", "ring", "square", "triangle", "cross", "level bars", "upright bars", "slanted bars", "checks", "dots",
)  # fmt: skip


def images(progress: Progress = no_progress) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return gray images, uint8 [N, 32, 32], and their classes, uint8 [N], per split; the classes are balanced."""
    out = {}
    for chunk, (split, n) in enumerate(SIZES.items()):
        rng = chunk_rng(SEED, chunk)
        labels = rng.permutation(np.arange(n) % len(CLASSES)).astype(np.uint8)
        out[split] = (np.stack([_image(rng, int(label)) for label in labels]), labels)
        progress(f"generating {split} images", n, n)
    return out


def _image(rng: np.random.RandomState, label: int) -> np.ndarray:
    """Return one shape or grating of random place, size, phase and polarity on a shaded, noisy background."""
    y, x = np.mgrid[:32, :32].astype(np.float64)
    cy, cx, radius = rng.uniform(10, 22), rng.uniform(10, 22), rng.uniform(6, 10)
    period, phase = rng.uniform(5, 10), rng.uniform(0, 2 * np.pi)
    dy, dx = y - cy, x - cx
    wave = 2 * np.pi / period
    name = CLASSES[label]
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
