"""``python -m weightsteer`` is the command line."""

import sys

from weightsteer.cli import main

if __name__ == "__main__":  # worker processes import this module too
    sys.exit(main())
