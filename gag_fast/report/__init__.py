"""Turning finished results into things a person looks at: pictures, tables and one HTML page."""
