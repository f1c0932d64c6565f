"""Runs a function in a child process that can be killed and that can neither write files nor use the network."""
