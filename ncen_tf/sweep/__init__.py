"""Grids of trainings: each cell is trained, exported and attacked, and leaves a record."""
