"""Metrics of attacks, and the reports, pages and gates made of them."""
