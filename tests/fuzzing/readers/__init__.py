"""What reads each format, as the programs do: from a folder to the end of what depends on its files alone.

Each raises InputError, or returns.
"""
