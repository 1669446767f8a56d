"""A project and its state in one archive: `back_up` while everything runs, `restore` whole or not at all."""
