"""Attacks on a target, the suites that group them, and what runs a suite."""
