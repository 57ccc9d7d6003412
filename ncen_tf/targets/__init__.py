"""Anything that can be attacked, as one differentiable callable: images -> member logits."""
