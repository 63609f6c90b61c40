"""``python -m mnist_tuner`` is ``mnist-tuner``."""

from mnist_tuner.cli import main

if __name__ == "__main__":
    main()
