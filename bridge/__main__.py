"""`python -m bridge`."""

from __future__ import annotations

from bridge.commands.cli import main

if __name__ == "__main__":
    main(prog_name="bridge")
