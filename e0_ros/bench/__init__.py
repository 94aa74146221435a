"""Measurements of the graph: `run(...) -> dict` of figures, and a table."""
