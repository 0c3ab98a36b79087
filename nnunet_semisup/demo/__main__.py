"""Run the demo as ``python -m nnunet_semisup.demo``."""

from nnunet_semisup.demo.run import main

main()
