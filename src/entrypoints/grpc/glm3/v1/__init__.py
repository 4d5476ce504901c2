"""Version 1 of the messages: chat.proto, and the modules that `make proto` writes."""
