"""What the tests are told as data."""
