"""File formats other than SafeTensors: GGUF and APR are read strictly and written bit-exactly."""
