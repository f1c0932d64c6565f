"""A function in a child process that can be killed and that can reach neither files nor the network."""
