"""Results of many runs as tables: grouped over seeds, beside the paper's cells, in four formats."""
