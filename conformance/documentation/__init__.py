"""The pages and tables of `docs/` that are generated from the code, so that they cannot drift from it."""
