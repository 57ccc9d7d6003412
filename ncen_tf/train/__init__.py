"""Training: the Keras model, the strategies, and runs that survive interruption."""
