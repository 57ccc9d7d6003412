"""Penalties on how members relate, as pure functions of their input gradients or predictions."""
