"""The report: a folder with one page that opens without a server."""
