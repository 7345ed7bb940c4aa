"""Parts of every command: messages, exit codes, interrupts, optional packages, processors."""
