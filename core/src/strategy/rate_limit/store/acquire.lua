-- Takes a slot and returns 1, or 0 when all are taken.
-- KEYS[1] is a sorted set of the slots that are taken, each until its score, in microseconds of the server's clock.
-- ARGV: slots, lease in microseconds, name of this slot, life of the set in milliseconds, 1 to take it in any case.
local slots, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local ends = string.format('%.0f', now + lease)
local latest = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if latest[2] and tonumber(latest[2]) > now + lease then
  -- The clock was set back: no slot stays taken for longer than a lease from now.
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ends, '+inf')) do
    redis.call('ZADD', KEYS[1], ends, name)
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
if ARGV[5] ~= '1' and redis.call('ZCARD', KEYS[1]) >= slots
  and not redis.call('ZSCORE', KEYS[1], ARGV[3]) then
  return 0
end
redis.call('ZADD', KEYS[1], ends, ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
