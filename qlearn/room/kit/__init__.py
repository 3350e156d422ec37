"""The kit: a folder from which a room sets the course up without a network."""
