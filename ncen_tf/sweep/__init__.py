"""Grids of runs: what to train, export and attack, and the records that each cell leaves."""
