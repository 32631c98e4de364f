import sys

from api_helpers import PROGRAMS

sys.path.append(str(PROGRAMS))
