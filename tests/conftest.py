"""What all tests share."""

import gc

# Whoever looks through torch, transformers and thousands of collected tests for garbage does little else.
gc.set_threshold(50_000, 20, 20)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()  # what is never collected, nanobind calls leaked
