"""What every room uses: errors, seeds, the row schema, records and declarations. Start with `rows.py`."""
