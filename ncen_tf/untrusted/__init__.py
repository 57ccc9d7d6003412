"""Check files from other people before they are loaded: no code runs, and memory is limited."""
