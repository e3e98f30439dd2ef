"""Several replicas of a server, which Ray Serve keeps running, behind one front."""

from geodapt.extras import require

require("ray", "replicas need Ray", "ray")
