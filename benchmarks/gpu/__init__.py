"""Try and measure the project on an accelerator: `python -m benchmarks.gpu`, see docs/gpu.md.

`__main__` runs each part (`smoke`, `numerics`, `speed`, `utilisation`, `training`) as a process of its own
(`worker`), ends it at its time limit, and writes `report.md` from the lines that the parts wrote (`lines`).
"""
