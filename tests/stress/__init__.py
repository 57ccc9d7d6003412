"""Stress tests: damaged and hostile input files, and programs killed at random moments."""
