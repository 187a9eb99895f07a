"""Rules only: no await, no file, no socket, no clock or randomness of its own."""
