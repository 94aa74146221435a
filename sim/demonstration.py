"""The period of rows in a simulator."""

PERIOD_NS = 50_000_000
