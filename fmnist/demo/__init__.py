"""A page and an HTTP interface that classify pictures."""
