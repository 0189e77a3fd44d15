"""Where there is no systemd, nobody has its units."""

from __future__ import annotations

import sys

collect_ignore = [] if sys.platform == "linux" else ["test_systemd.py"]
