"""`e0_policy.lerobot_server` with the small towers of `small_policies`, in the place of LeRobot's interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from small_policies import cut_down

from e0_policy.lerobot_server import main

if __name__ == "__main__":
    cut_down()
    sys.exit(main())
