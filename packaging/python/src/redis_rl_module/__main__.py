"""`redis-server --loadmodule "$(python -m redis_rl_module)"`."""

from redis_rl_module import path

print(path())
