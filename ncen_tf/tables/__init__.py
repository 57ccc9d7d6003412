"""Tables of the results of sweeps, beside the cells of the paper."""
