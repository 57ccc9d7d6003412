"""Members (CIFAR-style ResNets) and the ensembles that are made of them."""
