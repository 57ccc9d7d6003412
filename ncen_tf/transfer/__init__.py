"""How far adversarial images made on one member fool the others (Luo et al., Fig. 3)."""
