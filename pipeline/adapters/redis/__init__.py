"""Redis: events on Streams, resource locks with a fence."""
