"""Instruments that do not take the engine at its word: NVML, clocks, processes."""
