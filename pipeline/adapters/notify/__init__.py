"""Telling people and systems outside of the chat: one service a file."""
