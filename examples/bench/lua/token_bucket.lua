-- KEYS[1]; ARGV: capacity, units, seconds in which so many units come back.
-- Replies as RL.TOKENBUCKET does: allowed, limit, remaining, wait_ms, reset_ms.
local capacity = tonumber(ARGV[1])
local per_ms = tonumber(ARGV[2]) / (1000 * tonumber(ARGV[3]))
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local state = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(state[1]) or capacity
local at = tonumber(state[2]) or now
tokens = math.min(capacity, tokens + math.max(0, now - at) * per_ms)

if tokens < 1 then
    return {0, capacity, 0, math.ceil((1 - tokens) / per_ms), math.ceil((capacity - tokens) / per_ms)}
end
tokens = tokens - 1
local reset = math.ceil((capacity - tokens) / per_ms)
redis.call('HSET', KEYS[1], 'tokens', tokens, 'at', now)
redis.call('PEXPIRE', KEYS[1], reset)
return {1, capacity, math.floor(tokens), 0, reset}
