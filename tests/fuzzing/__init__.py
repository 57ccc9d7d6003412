"""Damaged and hostile files against everything that reads files: accepted, or refused in one sentence."""
