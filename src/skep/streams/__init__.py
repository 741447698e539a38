"""What is too long or too lively for a message: lines that are followed, commands in containers, files."""
