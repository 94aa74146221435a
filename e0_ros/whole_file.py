"""A text file that is whole or not there, whenever the process is killed."""

from e0_policy.files import write_whole

__all__ = ["write_whole"]
