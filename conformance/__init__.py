"""The harness: everything that judges an inference engine, and nothing that infers."""
