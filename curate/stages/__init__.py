"""The stage contract: what a filter or a captioner is, its options, its columns, its weights."""
