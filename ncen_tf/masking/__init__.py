"""Signs that a target's gradients mislead attacks, so that its robust accuracy cannot be trusted."""
