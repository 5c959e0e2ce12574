"""A compact engine that loads SafeTensors straight to the GPU and decodes at batch 1."""
