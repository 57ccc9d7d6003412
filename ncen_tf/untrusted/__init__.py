"""Checks of files that others wrote, before they are loaded."""
