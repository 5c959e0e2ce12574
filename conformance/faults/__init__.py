"""Planted faults: small, named ways of being wrong that each check must see.

`planting` says what a fault is; the modules of `AREAS` hold them; `__main__` is the engine with one planted;
`trying` puts it on trial; `specificity` judges what the trial shows; `matrix` runs them all.
"""
