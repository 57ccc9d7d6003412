"""Check files from other people before they are loaded: no code runs, no other file is read, memory is bounded."""
