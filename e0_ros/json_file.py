"""Figures as a JSON file that every parser reads: what was not measured is null."""

from e0_policy.files import finite, write_json

__all__ = ["finite", "write_json"]
