"""What a training run adds to the model: the learning-rate schedule, figures over ranks, the start screen."""
