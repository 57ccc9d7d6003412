"""What everything else uses: errors, files, the description of the machine."""
