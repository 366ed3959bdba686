from tests.agent.conftest import blobs, control_plane, environments_dir, make_node

__all__ = ["blobs", "control_plane", "environments_dir", "make_node"]
