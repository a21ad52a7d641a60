"""Shared setup: no test may reach the network; the factories of tests/tiny.py are importable everywhere."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))
