"""What opens files of others: it reads what they hold, and runs none of it as Python."""
