"""`python -m trio_gateway`."""

from __future__ import annotations

from trio_gateway.cli import main

if __name__ == "__main__":
    main()
