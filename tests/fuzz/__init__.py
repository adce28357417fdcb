"""Fuzzing of everything that reads a file which a user got elsewhere: `python -m tests.fuzz.run --help`.

A target is a function of bytes. What its reader declares may be raised, nothing else; memory and time are bounded.
`crashers/` holds what once broke a target; `test_replay.py` puts it, and every seed, through the targets again.
"""
