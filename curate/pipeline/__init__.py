"""The walk of the data: what is pending, the jobs that do it, and what it will cost."""
