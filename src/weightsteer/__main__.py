"""``python -m weightsteer`` is the command line."""

import sys

from weightsteer.cli import main

sys.exit(main())
