"""Training: objectives, the loop, the stages of one adaptation, pre-training, and the Ray Train launcher."""
