"""`python -m conformance.documentation` writes what is generated in README.md and docs/ again."""

from __future__ import annotations

import sys

from conformance.documentation.pages import ROOT, write


def main() -> None:
    """Write, and name what changed."""
    for page in write():
        sys.stdout.write(f"{page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
