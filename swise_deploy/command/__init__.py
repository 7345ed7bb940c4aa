"""What every command needs: messages and exit codes, interrupts, optional packages, processors."""
