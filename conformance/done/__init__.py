"""The specification's definition of done (1.3 and 8): gates, what measures them, and what they are worth."""
