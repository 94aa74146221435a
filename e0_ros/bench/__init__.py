"""Benchmarks. Each module of this package named in `command.BENCHMARKS` has `run(seconds) -> dict`.

The dict maps a figure's name (with its unit as suffix) to `{"values": [...], "target": "<= 2"}`: one value per
repetition, and what it should be (`<=`, `>=` and a number), or no target.
"""
