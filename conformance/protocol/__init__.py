"""The messages between the harness and an engine on trial, and both ends of the pipe."""
