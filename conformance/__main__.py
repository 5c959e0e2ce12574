"""`python -m conformance` is `falsify`."""

from conformance.cli import main

main()
