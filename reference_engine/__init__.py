"""A compact engine that loads SafeTensors straight to the GPU and decodes at batch 1."""

__version__ = "0.1.0"
