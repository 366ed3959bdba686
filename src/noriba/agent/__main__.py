import sys

from noriba.agent.main import main

sys.exit(main())
