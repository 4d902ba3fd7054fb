"""How fast each part of a user's wait is, and how near to what the machine can do."""
