"""The gate: which findings a pipeline lets through, for how long, and the one number that it ends with."""
