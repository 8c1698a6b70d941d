-- KEYS[1]; ARGV: limit, window in seconds.
-- Replies allowed, limit, remaining. Who is denied asks for PTTL by itself.
local limit = tonumber(ARGV[1])
local used = redis.call('INCR', KEYS[1])
if used == 1 then
    redis.call('EXPIRE', KEYS[1], ARGV[2])
end
if used > limit then
    return {0, limit, 0}
end
return {1, limit, limit - used}
