"""Set-up of `.venv` on a bare machine: `python3 -m e0_ros.bootstrap`. Standard library only, any Python from 3.7."""
