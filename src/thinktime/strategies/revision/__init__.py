"""Methods that check a draft and write it again."""
