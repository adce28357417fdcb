"""The generated sample of Retrieval: abstracts in a made-up language; label 1 = both are about the same topic.

The language has fields, and every field has topics. Words of one field are made of the syllables that it prefers,
so bytes tell the fields apart; the topics of a field differ in their words only. Half of the pairs with label 0
stay inside a field: a bag of bytes is right about the other half, and words are needed for the rest.
"""

from __future__ import annotations

import numpy as np

from tasks.core import SPLITS, Split, chunk_seed

SIZES = {"train": 8_000, "validation": 1_000, "test": 1_000}  # pairs; every document is in one pair only
SEED = 2011_04006  # chunk 0 makes the language, chunks 1 to 3 the splits

FIELDS, TOPICS = 3, 3  # topics of each field
OWN, COMMON = 48, 120  # words of a topic, words of everybody
SHARE = 0.6  # of a document's words that are its topic's own
TASTE = 0.2  # Dirichlet concentration of a field's preference for syllables
WORDS = (40, 90)  # a document's words: at least, below

_SYLLABLES = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]


def _words(rng: np.random.RandomState, n: int, preference: np.ndarray) -> list[str]:
    """n made-up words of two or three syllables."""
    return ["".join(rng.choice(_SYLLABLES, rng.randint(2, 4), p=preference)) for _ in range(n)]


def language() -> np.ndarray:
    """Words [FIELDS * TOPICS, OWN + COMMON]: a topic's own ones first; topic t belongs to field t // TOPICS."""
    rng = chunk_seed(SEED, 0)
    common = _words(rng, COMMON, np.full(len(_SYLLABLES), 1 / len(_SYLLABLES)))
    tastes = [rng.dirichlet(np.full(len(_SYLLABLES), TASTE)) for _ in range(FIELDS)]
    return np.array([_words(rng, OWN, taste) + common for taste in tastes for _ in range(TOPICS)])


def documents(rng: np.random.RandomState, topics: np.ndarray) -> list[bytes]:
    """One document for each of `topics` [N]; words are drawn independently."""
    lengths = rng.randint(*WORDS, size=len(topics))
    topic = np.repeat(topics, lengths)
    own = rng.rand(len(topic)) < SHARE
    column = np.where(own, rng.randint(OWN, size=len(topic)), OWN + rng.randint(COMMON, size=len(topic)))
    ends = np.where(rng.rand(len(topic)) < 0.1, ". ", " ")
    words = np.char.add(language()[topic, column], ends).tolist()
    stops = np.cumsum(lengths).tolist()
    return ["".join(words[a:b]).rstrip().encode() for a, b in zip([0, *stops], stops, strict=False)]


def topic_pairs(rng: np.random.RandomState, labels: np.ndarray) -> np.ndarray:
    """Topics [N, 2] of pairs with `labels` [N]: the same, or half of the time another one of the same field."""
    n = len(labels)
    field, topic = rng.randint(FIELDS, size=n), rng.randint(TOPICS, size=n)
    stays = (labels == 1) | (rng.rand(n) < 0.5)
    other_field = np.where(stays, field, (field + rng.randint(1, FIELDS, size=n)) % FIELDS)
    other_topic = np.where(labels == 1, topic, (topic + rng.randint(1, TOPICS, size=n)) % TOPICS)
    return np.stack([field * TOPICS + topic, other_field * TOPICS + other_topic], 1)


def sample_pairs(split: str, *, max_bytes: int) -> Split:
    """`SIZES[split]` pairs, half of them with label 1; every document cut to `max_bytes`."""
    rng = chunk_seed(SEED, 1 + SPLITS.index(split))
    n = SIZES[split]
    labels = rng.permutation(np.arange(n) % 2)
    texts = documents(rng, topic_pairs(rng, labels).reshape(-1))
    return Split.from_documents([t[:max_bytes] for t in texts], labels, np.arange(2 * n).reshape(n, 2))
