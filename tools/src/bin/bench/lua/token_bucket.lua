-- KEYS[1]; ARGV: capacity, units, seconds in which so many come back, units that this request takes.
-- Replies as RL.TOKENBUCKET does: allowed, limit, remaining, wait_ms, reset_ms.
local capacity = tonumber(ARGV[1])
local per_ms = tonumber(ARGV[2]) / (1000 * tonumber(ARGV[3]))
local cost = tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local state = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(state[1]) or capacity
local at = tonumber(state[2]) or now
tokens = math.min(capacity, tokens + math.max(0, now - at) * per_ms)

if tokens < cost then
    local wait, reset = (cost - tokens) / per_ms, (capacity - tokens) / per_ms
    return {0, capacity, math.floor(tokens), math.ceil(wait), math.ceil(reset)}
end
tokens = tokens - cost
local reset = math.ceil((capacity - tokens) / per_ms)
redis.call('HSET', KEYS[1], 'tokens', tokens, 'at', now)
redis.call('PEXPIRE', KEYS[1], reset)
return {1, capacity, math.floor(tokens), 0, reset}
