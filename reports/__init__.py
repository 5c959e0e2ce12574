"""Pure functions from a trial record to pages, JUnit and terminal text."""
