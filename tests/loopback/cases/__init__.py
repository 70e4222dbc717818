"""The cases of tests/loopback: each file answers one question about the real agent."""
