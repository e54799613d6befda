"""Row 56: the best procedure depends on the reward model too."""
