"""Calibration: what the rules of the timed rows do with values of this machine, healthy and with planted doses."""
