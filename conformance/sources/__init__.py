"""What can be learnt from an engine's sources: exported, built, installed, linted, scanned."""
