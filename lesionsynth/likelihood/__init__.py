"""Likelihood maps: learned where lesions occur, laid over a host to say where new ones may be."""
