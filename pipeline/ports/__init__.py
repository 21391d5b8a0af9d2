"""Small protocols, one idea each: what the stages need from the world."""
