"""What an installation takes on the disk, and whether the files of a release work."""
