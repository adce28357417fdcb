"""The generated sample of Text: film reviews in which praise is often wrapped in a negation or in another's opinion.

A small model learns the sample within minutes, but the bytes of a review without their order do not tell its class.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tasks.core import Progress, chunk_rng, no_progress

SEED = 1
SIZES = {"train": 16_000, "test": 1_000}
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
# Patterns and weights. {=} and {v} are an adjective and a verb of the writer's opinion, {!} and {w} of the opposite.
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
_FILLER_SHARE, _DISSENT_SHARE = 0.25, 0.08  # of all sentences; of the opinions, those against the verdict


def reviews(progress: Progress = no_progress) -> dict[str, list[tuple[bytes, int]]]:
    """Return film reviews of 4 to 40 sentences per split, as (text, verdict): 0 negative, 1 positive, balanced."""
    out: dict[str, list[tuple[bytes, int]]] = {}
    for chunk, (split, n) in enumerate(SIZES.items()):
        rng = chunk_rng(SEED, chunk)
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
