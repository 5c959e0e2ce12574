"""One trial: the plan, the stand that a check speaks from, the recorder and the runner."""
