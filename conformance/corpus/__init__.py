"""Files to try an engine with: valid, malformed, and the models it must answer with."""
