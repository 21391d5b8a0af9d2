"""What must hold before anything is changed: pure rules over facts read a moment ago."""
