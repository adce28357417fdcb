"""Text: IMDB reviews as bytes, 2 classes. The last checkpoint is tested; there is no validation split.

    python run_lra.py train --task text --mixer cosformer --protocol laptop --seed 0

`lra` has length 1,000 as in the published configuration file; the paper's table reports the best of 1K to 4K.
"""

from __future__ import annotations

from configs.shared import BUSY_CORE, TWO_CORES, laptop, lra, measured, quick, small

SAMPLE = "b90ad14025230274b57875243ddb6e4949a31104bf730f91e56d3ad469adc512"  # SHA-256 of the generated sample
COPY = "1e15d283137b1ebea2bd0d9464a1b0c12dfe511b69a11db1b68d07a587b8cc11"  # of an unofficial copy of the reviews

PROTOCOLS = {
    "quick": quick("text", "cut", minutes=f"0.6 {TWO_CORES}", expected=measured(72.9, SAMPLE), steps=600),
    "laptop": laptop("text", 4_000, minutes=f"28 {BUSY_CORE}", expected=measured(64.7, COPY), steps=1_500, warmup=200),
    "small": small("text", 4_000, softmax=61.95, warmup=80),
    "lra": lra(
        "text",
        1_000,
        model={"d_model": 256, "qkv_dim": 256, "mlp_dim": 1024, "head": (1024,)},
        train={"steps": 20_000, "warmup": 8_000},
        softmax=64.27,
        linear=65.90,
        cosformer=63.41,
    ),
}
