"""`python -m sim.bridge`."""

import sys

from sim.bridge import main

sys.exit(main())
