"""Row 59: the first of n to finish, diagnosed, predicted and replayed."""
