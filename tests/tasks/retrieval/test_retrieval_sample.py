"""The sample of Retrieval: disjoint splits, labels that words tell and counts of bytes do not, frozen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tasks import retrieval
from tasks.core import SAMPLE, SPLITS, Split, no_progress
from tasks.retrieval import sample as retrieval_sample


@pytest.fixture(scope="module", params=["full", "cut"])
def sample(request: pytest.FixtureRequest) -> dict[str, Split]:
    parts = retrieval.build(request.param, SAMPLE, Path(), workers=1, progress=no_progress)
    return {part.split: part.examples for part in parts}


def byte_features(split: Split) -> np.ndarray:
    """Return |a - b| and a * b of the byte histograms of each pair, [N, 512]."""
    documents = [split.data[a:b] for a, b in zip(split.offsets[:-1], split.offsets[1:], strict=True)]
    histograms = np.stack([np.bincount(d, minlength=256) / len(d) for d in documents])
    a, b = histograms[split.items[:, 0]], histograms[split.items[:, 1]]
    return np.concatenate([np.abs(a - b), a * b], 1)


def test_sample_is_balanced_and_train_is_disjoint(sample: dict[str, Split]) -> None:
    assert {name: len(sample[name]) for name in SPLITS} == retrieval_sample.SIZES
    documents = {name: [s.document(d) for d in range(len(s.offsets) - 1)] for name, s in sample.items()}
    for name, split in sample.items():
        assert split.labels.mean() == 0.5
        assert len(set(split.items.reshape(-1).tolist())) == 2 * len(split) == len(set(documents[name]))
    assert not set(documents["train"]) & set(documents["validation"] + documents["test"])
    assert not set(documents["validation"]) & set(documents["test"])


def test_sample_needs_more_than_a_bag_of_bytes(sample: dict[str, Split]) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    model.fit(byte_features(sample["train"]), sample["train"].labels)
    assert 0.65 < model.score(byte_features(sample["test"]), sample["test"].labels) < 0.85


def test_the_words_of_the_sample_tell_its_label(sample: dict[str, Split]) -> None:
    test, own = (
        sample["test"],
        [set(words) for words in retrieval_sample.language()[:, : retrieval_sample.OWN].tolist()],
    )
    texts = [test.document(d).decode().replace(".", "").split() for d in range(len(test.offsets) - 1)]
    topic = np.array([np.argmax([sum(word in words for word in text) for words in own]) for text in texts])
    same = topic[test.items[:, 0]] == topic[test.items[:, 1]]
    assert (same == test.labels).mean() > 0.97


def test_sample_never_changes_without_a_new_version(sample: dict[str, Split]) -> None:
    """If this fails, the data have changed: raise CARD.version and record the new hashes."""
    assert retrieval.CARD.version == 1
    assert sample["test"].sha256[:16] in ("e0109041e7ef2a1a", "725b57f9045bf90e")
