"""The rules of the trivial baselines: predictors of a test split without a sequence model.

A rule takes train, test and the number of classes, and returns uint8 [N], a class for each example of test.

majority class         the most frequent label of train
root operator          ListOps: the most frequent answer per root operator
root operator, digits  ListOps: per root operator, least and greatest digit directly under it
byte n-grams           Text, Retrieval: logistic regression on hashed n-grams of 1 to 4 bytes; of a pair, on shared ones
pixels                 Image, Pathfinder: logistic regression on pixels
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from tasks.core import Card, Split

Rule = Callable[[Split, Split, int], np.ndarray]

NGRAMS, FEATURES, STRENGTH = range(1, 5), 2**18, 10.0
PIXEL_STRENGTH, TOLERANCE, ITERATIONS = 5.0, 1e-3, 1000


def majority_class(train: Split, test: Split, classes: int) -> np.ndarray:
    """Return the most frequent label of train for every example."""
    return np.full(len(test), train.majority, np.uint8)


def root_operator(train: Split, test: Split, classes: int) -> np.ndarray:
    """Return the most frequent answer in train for the first byte of an example.

    In ListOps that byte is the root operator. A first byte that train does not have gets the majority class.
    """
    return _by_key(_first_byte(train), _first_byte(test), train.labels, majority_class(train, test, classes), classes)


def root_operator_and_digits(train: Split, test: Split, classes: int) -> np.ndarray:
    """Return the most frequent answer in train for root operator, least and greatest digit directly under the root.

    A combination that train does not have gets the answer of its root operator alone.
    """
    otherwise = root_operator(train, test, classes)
    return _by_key(_root_and_digits(train), _root_and_digits(test), train.labels, otherwise, classes)


def byte_ngrams(train: Split, test: Split, classes: int) -> np.ndarray:
    """Predict by logistic regression on tf-idf of hashed byte n-grams; for a pair, on those that its documents share.

    Weights are sublinear in counts and a document's norm is 1. A feature of a pair is the geometric mean of the two
    weights, so their sum is the similarity of the documents.
    """
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    # HashingVectorizer reads text: it decodes bytes, and replaces every run of white space.
    hashed = FeatureHasher(FEATURES, input_type="string", alternate_sign=False, dtype=np.float32)
    weighted = make_pipeline(hashed, TfidfTransformer(sublinear_tf=True))

    def features(split: Split, documents: np.ndarray) -> object:
        if split.items.ndim == 1:
            return documents[split.items]
        first, second = documents[split.items[:, 0]], documents[split.items[:, 1]]
        return first.multiply(second).sqrt().tocsr()

    fitted = LogisticRegression(C=STRENGTH, max_iter=ITERATIONS)
    fitted.fit(features(train, weighted.fit_transform(_ngrams(train))), train.labels)
    return fitted.predict(features(test, weighted.transform(_ngrams(test)))).astype(np.uint8)


def ngrams(document: bytes) -> list[bytes]:
    """Return all runs of 1 to 4 bytes of a document, as often as they occur."""
    return [document[i : i + size] for size in NGRAMS for i in range(len(document) - size + 1)]


def pixels(train: Split, test: Split, classes: int) -> np.ndarray:
    """Predict by logistic regression on the pixels of an image, each standardised over train."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    strength = PIXEL_STRENGTH / len(train)  # against the mean of the losses, not their sum
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=TOLERANCE, max_iter=ITERATIONS))
    return fitted.fit(_pixels(train), train.labels).predict(_pixels(test)).astype(np.uint8)


MAJORITY = "majority class"
DETERMINISTIC: Mapping[str, Rule] = {
    MAJORITY: majority_class,
    "root operator": root_operator,
    "root operator, digits": root_operator_and_digits,
}
FITTED: Mapping[str, Rule] = {"byte n-grams": byte_ngrams, "pixels": pixels}
# Raised by every change of a rule that can change its predictions; 1 for rules that are not listed.
VERSIONS: Mapping[str, int] = {"byte n-grams": 2}


def version_of(name: str) -> int:
    """Return the version of a rule. Records of another one are kept, but no longer used."""
    return VERSIONS.get(name, 1)


def rules(card: Card) -> dict[str, Rule]:
    """Return the trivial baselines of a task by name.

    Those of `DETERMINISTIC` give the same predictions everywhere. The predictions of `FITTED` ones may differ in a few
    examples with the versions of scikit-learn and of its linear algebra.
    """
    return {name: {**DETERMINISTIC, **FITTED}[name] for name in (MAJORITY, *card.baselines)}


def _by_key(train: np.ndarray, test: np.ndarray, labels: np.ndarray, otherwise: np.ndarray, classes: int) -> np.ndarray:
    """Return the most frequent label (the smallest of several) of each key in train; `otherwise` for unknown keys."""
    keys = int(max(train.max(), test.max())) + 1
    counts = np.bincount(train.astype(int) * classes + labels, minlength=keys * classes).reshape(keys, classes)
    return np.where(counts.sum(1)[test] > 0, counts.argmax(1)[test], otherwise).astype(np.uint8)


def _first_byte(split: Split) -> np.ndarray:
    return split.data[split.offsets[split.items]]  # no document is empty


def _root_and_digits(split: Split) -> np.ndarray:
    """Return int [N], a number for root operator, least and greatest digit at depth 1 (10 and 0 if there is none)."""
    from tasks.listops.grammar import DIGITS, SYMBOLS

    digit = np.array([DIGITS.get(symbol, -1) for symbol in SYMBOLS])
    ends, opens = np.array([s == "]" for s in SYMBOLS]), np.array([s.startswith("[") for s in SYMBOLS])
    numbers = np.zeros(len(split.offsets) - 1, int)
    for d, (start, end) in enumerate(zip(split.offsets[:-1], split.offsets[1:], strict=True)):
        document = split.data[start:end]
        depth = np.cumsum(opens[document].astype(int) - ends[document])
        digits = digit[document[depth == 1]]
        digits = digits[digits >= 0]
        numbers[d] = int(document[0]) * 110 + digits.min(initial=10) * 10 + digits.max(initial=0)
    return numbers[split.items]


def _ngrams(split: Split) -> Iterator[list[bytes]]:
    return (ngrams(split.document(d)) for d in range(len(split.offsets) - 1))


def _pixels(split: Split) -> np.ndarray:
    """Return float32 [N, R * R]."""
    return split.data.reshape(len(split.offsets) - 1, -1)[split.items].astype(np.float32)
