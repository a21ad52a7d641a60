"""Where the public data sets lie: beside the checkout, or where WEIGHTSTEER_DATA says; tests skip without them."""

import os
from pathlib import Path

DATA = Path(os.environ.get("WEIGHTSTEER_DATA", Path(__file__).parents[2] / "shared" / "data"))
