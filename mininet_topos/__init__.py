"""Compute hosts and fabrics in network namespaces, and the experiments that run on them."""
