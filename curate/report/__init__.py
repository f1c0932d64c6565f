"""The report: a folder with a page that opens without a server."""
