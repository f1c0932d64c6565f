"""The kept clips as mp4 bytes with every score and caption, in Parquet files."""
