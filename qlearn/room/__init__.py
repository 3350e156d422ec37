"""What a teacher's machine serves to a room of learners."""
