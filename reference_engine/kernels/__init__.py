"""Fused Triton kernels of a decoding step; `step.FusedStep` puts them together."""
