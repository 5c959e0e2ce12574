"""Planted faults: small, named ways of being wrong that each check must see."""
