"""What recipes compute inside jit, one file for each. `lra.protocols` has their settings, docs/recipes.md the sources.

Random numbers are a pure function of an example's key (`lra.training.step_functions`) and the position in its document,
so they depend neither on the bucket, the micro-batch nor the device.
"""
