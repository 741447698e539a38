"""The skep command; talks HTTP only."""
