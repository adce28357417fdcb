"""Mixers that fail in three ways, for tests of `benchmarks.gpu`."""

from __future__ import annotations

import os
import signal

from models.core import QKVAttention


class Raises(QKVAttention):
    def attend(self, q, k, v, mask, rng_keys):
        raise ValueError("not today")


class Dies(QKVAttention):
    def attend(self, q, k, v, mask, rng_keys):
        os.kill(os.getpid(), signal.SIGKILL)


class NotFinite(QKVAttention):
    def attend(self, q, k, v, mask, rng_keys):
        return v / 0
