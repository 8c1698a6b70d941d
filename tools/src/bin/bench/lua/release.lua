-- Gives a slot back: KEYS[1] the set, ARGV the id.
return redis.call('ZREM', KEYS[1], ARGV[1])
