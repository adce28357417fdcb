"""The generated sample of Retrieval: abstracts in an invented language. Label 1: both are about the same topic.

The language has fields of research, and each field has topics. A field prefers certain syllables in its words, so
fields can be distinguished by their bytes; topics of one field differ only in their words. Half of the pairs with label
0 are of one field: counting bytes is enough for the other half, and words are needed for the rest.
"""

from __future__ import annotations

import numpy as np

from tasks.core import SPLITS, Split, chunk_rng

SIZES = {"train": 8_000, "validation": 1_000, "test": 1_000}  # pairs; each document is in one pair only
SEED = 2011_04006  # chunk 0 generates the language, chunks 1 to 3 the splits

FIELDS, TOPICS = 3, 3  # topics of each field
OWN, COMMON = 48, 120  # words of a topic, words that all topics share
SHARE = 0.6  # of a document's words that are its topic's
CONCENTRATION = 0.2  # of the Dirichlet distribution of a field's syllables
WORDS = (40, 90)  # words of a document: at least, less than

_SYLLABLES = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]


def _words(rng: np.random.RandomState, n: int, probabilities: np.ndarray) -> list[str]:
    """Return n invented words of two or three syllables, with the given probability of each syllable."""
    return ["".join(rng.choice(_SYLLABLES, rng.randint(2, 4), p=probabilities)) for _ in range(n)]


def language() -> np.ndarray:
    """Return words [FIELDS * TOPICS, OWN + COMMON], a topic's own words first. Topic t is of field t // TOPICS."""
    rng = chunk_rng(SEED, 0)
    common = _words(rng, COMMON, np.full(len(_SYLLABLES), 1 / len(_SYLLABLES)))
    preferences = [rng.dirichlet(np.full(len(_SYLLABLES), CONCENTRATION)) for _ in range(FIELDS)]
    return np.array([_words(rng, OWN, preference) + common for preference in preferences for _ in range(TOPICS)])


def documents(rng: np.random.RandomState, topics: np.ndarray) -> list[bytes]:
    """Return a document for each of `topics`, int [N]; its words are drawn independently."""
    lengths = rng.randint(*WORDS, size=len(topics))
    topic = np.repeat(topics, lengths)
    own = rng.rand(len(topic)) < SHARE
    column = np.where(own, rng.randint(OWN, size=len(topic)), OWN + rng.randint(COMMON, size=len(topic)))
    ends = np.where(rng.rand(len(topic)) < 0.1, ". ", " ")
    words = np.char.add(language()[topic, column], ends).tolist()
    stops = np.cumsum(lengths).tolist()
    return ["".join(words[a:b]).rstrip().encode() for a, b in zip([0, *stops], stops, strict=False)]


def topic_pairs(rng: np.random.RandomState, labels: np.ndarray) -> np.ndarray:
    """Return the topics, int [N, 2], of pairs with `labels`, [N].

    The second topic of label 0 is another of the same field half of the time, else one of another field.
    """
    n = len(labels)
    field, topic = rng.randint(FIELDS, size=n), rng.randint(TOPICS, size=n)
    stays = (labels == 1) | (rng.rand(n) < 0.5)
    other_field = np.where(stays, field, (field + rng.randint(1, FIELDS, size=n)) % FIELDS)
    other_topic = np.where(labels == 1, topic, (topic + rng.randint(1, TOPICS, size=n)) % TOPICS)
    return np.stack([field * TOPICS + topic, other_field * TOPICS + other_topic], 1)


def sample_pairs(split: str, *, max_bytes: int) -> Split:
    """Return `SIZES[split]` pairs, half of them with label 1, with each document cut to `max_bytes`."""
    rng = chunk_rng(SEED, 1 + SPLITS.index(split))
    n = SIZES[split]
    labels = rng.permutation(np.arange(n) % 2)
    texts = documents(rng, topic_pairs(rng, labels).reshape(-1))
    return Split.from_documents([t[:max_bytes] for t in texts], labels, np.arange(2 * n).reshape(n, 2))
