"""`trio-gateway bench`: how much of libopus is left when the worker pool is around it."""
