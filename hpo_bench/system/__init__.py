"""The ground: the process and the disk as they are found, before anything of this package."""
