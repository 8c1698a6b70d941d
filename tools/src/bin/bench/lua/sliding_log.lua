-- KEYS[1]; ARGV: limit, window in milliseconds. A member for each hit, its score the time.
-- Replies as RL.SLIDINGLOG does: allowed, limit, remaining, wait_ms, reset_ms.
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local start = now - window * 1000

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', start)
local used = redis.call('ZCARD', KEYS[1])
if used >= limit then
    local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
    return {0, limit, 0, math.ceil((first[2] - start) / 1000), redis.call('PTTL', KEYS[1])}
end
-- Two hits of one microsecond are two members.
redis.call('ZADD', KEYS[1], now, time[1] .. time[2] .. ':' .. used)
redis.call('PEXPIRE', KEYS[1], window)
return {1, limit, limit - used - 1, 0, window}
