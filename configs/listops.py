"""ListOps: 10 classes, 500 to 2,000 symbols.

python run_lra.py train --task listops --mixer cosformer --protocol laptop --seed 0
"""

from __future__ import annotations

from configs.shared import BUSY_CORE, TWO_CORES, laptop, lra, measured, quick, small

PROTOCOLS = {
    "quick": quick("listops", "short", minutes=f"0.8 {TWO_CORES}", expected=measured(36.1), steps=1_200),
    "laptop": laptop("listops", 2_000, minutes=f"33 {BUSY_CORE}", expected=measured(35.8), steps=2_500),
    "small": small("listops", 2_000, softmax=38.37),
    "lra": lra(
        "listops",
        2_000,
        model={"d_model": 512, "heads": 8, "qkv_dim": 512, "mlp_dim": 1024, "head": (1024,)},
        train={},
        softmax=36.37,
        linear=16.13,
        cosformer=37.90,
    ),
}
