"""The generated sample of Retrieval: abstracts in a made-up language; label 1 = both are about the same topic.

A topic has words of its own, made of syllables that all topics share and each prefers a little differently. So
the bytes of two documents say something about their topics, their words say nearly everything.
"""

from __future__ import annotations

import numpy as np

from tasks.core import SPLITS, Split, chunk_seed

SIZES = {"train": 8_000, "validation": 1_000, "test": 1_000}  # pairs; every document is in one pair only
SEED = 2011_04006  # of the language; the splits are its chunks 1 to 3

TOPICS, TOPIC_WORDS, COMMON_WORDS = 8, 24, 120
TOPIC_SHARE = 0.5  # of the words of a document
TASTE = 1.0  # Dirichlet concentration of a topic's preference for syllables: lower is easier for a bag of bytes
WORDS = (40, 90)  # words a document

_SYLLABLES = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]


def _words(rng: np.random.RandomState, n: int, preference: np.ndarray) -> list[str]:
    """n made-up words of two or three syllables."""
    return ["".join(rng.choice(_SYLLABLES, rng.randint(2, 4), p=preference)) for _ in range(n)]


def language() -> np.ndarray:
    """Words that every split shares, [TOPICS, TOPIC_WORDS + COMMON_WORDS]: first the topic's own, then everybody's."""
    rng = chunk_seed(SEED, 0)
    common = _words(rng, COMMON_WORDS, np.full(len(_SYLLABLES), 1 / len(_SYLLABLES)))
    own = [_words(rng, TOPIC_WORDS, rng.dirichlet(np.full(len(_SYLLABLES), TASTE))) for _ in range(TOPICS)]
    return np.array([words + common for words in own])


def documents(rng: np.random.RandomState, topics: np.ndarray) -> list[bytes]:
    """One document for each of `topics`; sentences of words drawn independently."""
    words = language()
    lengths = rng.randint(*WORDS, len(topics))
    topic = np.repeat(topics, lengths)
    own = rng.rand(len(topic)) < TOPIC_SHARE
    column = np.where(own, rng.randint(TOPIC_WORDS, size=len(topic)), rng.randint(TOPIC_WORDS, words.shape[1], size=len(topic)))
    ends = np.where(rng.rand(len(topic)) < 0.1, ". ", " ")
    text = np.char.add(words[topic, column], ends).tolist()
    stops = np.cumsum(lengths)
    return ["".join(text[a:b]).rstrip().encode() for a, b in zip(stops - lengths, stops, strict=True)]


def sample_pairs(split: str, *, max_bytes: int) -> Split:
    """`SIZES[split]` pairs, half of them with label 1; every document cut to `max_bytes`."""
    rng = chunk_seed(SEED, 1 + SPLITS.index(split))
    n = SIZES[split]
    labels = rng.permutation(np.arange(n) % 2)
    first = rng.randint(TOPICS, size=n)
    second = np.where(labels == 1, first, (first + rng.randint(1, TOPICS, size=n)) % TOPICS)
    texts = documents(rng, np.stack([first, second], 1).reshape(-1))
    return Split.from_documents([t[:max_bytes] for t in texts], labels, np.arange(2 * n).reshape(n, 2))
