"""`python -m captionkit`, which is what launchers such as torchrun start."""

import sys

from captionkit.cli import main

sys.exit(main())
